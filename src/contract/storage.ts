import { type Static, Type } from "typebox";
import { IdSchema } from "./ids.ts";

const ApparentSchema = Type.Integer({ description: "length of the files in bytes, holes included" });
const UsedSchema = Type.Integer({
  description:
    "bytes of blocks that the files refer to; blocks that files share by reference count for each of them",
});

const StoredOfIdSchema = Type.Object({
  id: IdSchema,
  apparent_bytes: ApparentSchema,
  used_bytes: UsedSchema,
});

export const StorageReportSchema = Type.Object(
  {
    root_dir: Type.String(),
    clone_mode: Type.Union([Type.Literal("reflink"), Type.Literal("copy")]),
    total_bytes: Type.Integer({ description: "size of the daemon's filesystem" }),
    free_bytes: Type.Integer({ description: "what is left on it" }),
    images: Type.Object({
      files: Type.Integer({ description: "kernels, initrds and root disks in the image store" }),
      apparent_bytes: ApparentSchema,
      used_bytes: UsedSchema,
    }),
    machines: Type.Array(StoredOfIdSchema, { description: "the disk of each machine" }),
    snapshots: Type.Array(StoredOfIdSchema, { description: "the files of each snapshot" }),
  },
  { $id: "StorageReport" },
);
export type StorageReport = Static<typeof StorageReportSchema>;
