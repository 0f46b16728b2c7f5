import { Type } from "typebox";

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
