import { type Static, Type } from "typebox";
import { IdSchema, type MachineId, type SnapshotId } from "../contract/ids.ts";
import { HardwareSchema, ReadySchema } from "../contract/machine.ts";
import { ImageRefSchema } from "./schemas.ts";

const Sha256Schema = Type.String({ pattern: "^[0-9a-f]{64}$" });
const FileSchema = Type.Object({
  name: Type.String({ minLength: 1, maxLength: 64 }),
  size_bytes: Type.Integer({ minimum: 0 }),
  sha256_hex: Sha256Schema,
});

/**
 * What is written beside the files of a snapshot and travels with them: all that another host needs to judge and to
 * restore it. Objects are open: a field that a newer version added is kept, not refused.
 */
export const ManifestSchema = Type.Object({
  format: Type.Literal(2),
  snapshot_id: Type.Unsafe<SnapshotId>(IdSchema),
  machine_id: Type.Unsafe<MachineId>(IdSchema),
  created_at: Type.String(),
  image: ImageRefSchema,
  vcpus: Type.Integer({ minimum: 1 }),
  memory_mib: Type.Integer({ minimum: 1 }),
  ready: ReadySchema,
  hardware: HardwareSchema,
  consistency: Type.Union([Type.Literal("synced"), Type.Literal("crash")]),
  source_runtime_host: Type.Optional(Type.String()),
  source_tap_device: Type.Optional(Type.String()),
  host: Type.Object({
    kernel: Type.String({ description: "release of the host's kernel" }),
    architecture: Type.String(),
    cpu_vendor: Type.String(),
    cpu_model: Type.String({ description: "name, family, model and stepping" }),
    cpu_flags: Type.Array(Type.String()),
  }),
  vmm: Type.Object({
    name: Type.String(),
    version: Type.String(),
    snapshot_format: Type.Optional(
      Type.String({ description: "of the state file, as the VMM names it; only with memory" }),
    ),
  }),
  /** Of the frozen guest, so that whoever wakes it can reach it once and make it another. Only with memory. */
  guest: Type.Optional(
    Type.Object({
      hostname: Type.String(),
      guest_machine_id: Type.String(),
      ssh_host_public_key: Type.String(),
      login_key: Type.String({ description: "private key that this one guest lets in as root" }),
    }),
  ),
  memory_kind: Type.Union([Type.Literal("none"), Type.Literal("full"), Type.Literal("diff")]),
  disk: FileSchema,
  memory: Type.Optional(FileSchema),
  vmstate: Type.Optional(FileSchema),
});
export type Manifest = Static<typeof ManifestSchema>;

/** A manifest before its files were sealed. */
export type ManifestDraft = Omit<Manifest, "disk" | "memory" | "vmstate">;
