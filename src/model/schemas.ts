import { Type } from "typebox";
import { CpuTemplateSchema, RateLimitsSchema } from "../contract/machine.ts";

const Sha256Schema = Type.String({ pattern: "^[0-9a-f]{64}$" });
const CountSchema = Type.Integer({ minimum: 0 });

/** The shapes of records that are checked in more than one place: in the state's file and in a snapshot's manifest. */
export const ImageRefSchema = Type.Object({
  name: Type.Optional(Type.String()),
  kernel_sha256: Sha256Schema,
  initrd_sha256: Sha256Schema,
  rootfs_sha256: Sha256Schema,
  rootfs_size_bytes: CountSchema,
  kernel_image_url: Type.String(),
  rootfs_url: Type.String(),
  default_user: Type.String(),
});

export const HardwareRecordSchema = Type.Object({
  io_engine: Type.Union([Type.Literal("Sync"), Type.Literal("Async")]),
  pci: Type.Boolean(),
  rate_limits: Type.Optional(RateLimitsSchema),
  cpu_template: Type.Optional(CpuTemplateSchema),
  huge_pages: Type.Union([Type.Literal("None"), Type.Literal("2M")]),
  smt: Type.Boolean(),
  track_dirty_pages: Type.Boolean(),
  boot_args: Type.Optional(Type.String()),
});
