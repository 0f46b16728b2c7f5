import { type Static, Type } from "typebox";
import { Compile } from "typebox/compile";
import { IdSchema, type MachineId, type SnapshotId } from "../contract/ids.ts";
import {
  EndedSchema,
  HardwareSchema,
  PhaseSchema,
  ReadySchema,
  ReceiptEntrySchema,
} from "../contract/machine.ts";
import type { MachineRecord, OperationRecord, SnapshotRecord } from "../model/records.ts";
import { ImageRefSchema } from "../model/schemas.ts";
import type { RecordKind } from "./types.ts";

const MachineIdSchema = Type.Unsafe<MachineId>(IdSchema);
const SnapshotIdSchema = Type.Unsafe<SnapshotId>(IdSchema);
const Sha256Schema = Type.String({ pattern: "^[0-9a-f]{64}$" });
const TimeSchema = Type.String({ pattern: "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z$" });
const CountSchema = Type.Integer({ minimum: 0 });
const PositiveSchema = Type.Integer({ minimum: 1 });
const CloneSchema = Type.Union([Type.Literal("reflink"), Type.Literal("copy")]);
const FileSchema = Type.Object({ size_bytes: CountSchema, sha256_hex: Sha256Schema });

const MemoryKindSchema = Type.Union([Type.Literal("none"), Type.Literal("full"), Type.Literal("diff")]);
const VmmLimitsSchema = Type.Object({
  no_file: PositiveSchema,
  fsize_bytes: PositiveSchema,
  memory_bytes: PositiveSchema,
  cpus: Type.Number(),
  pids: PositiveSchema,
});

/** Objects are open: a field that a newer version added is kept, not refused. */
const MachineRecordSchema = Type.Object({
  id: MachineIdSchema,
  phase: PhaseSchema,
  error: Type.Optional(Type.String()),
  request_sha256: Sha256Schema,
  image: ImageRefSchema,
  snapshot_id: Type.Optional(SnapshotIdSchema),
  vcpus: PositiveSchema,
  memory_mib: PositiveSchema,
  storage_bytes: CountSchema,
  ready: ReadySchema,
  disk_clone: CloneSchema,
  hardware: Type.Optional(HardwareSchema),
  identity: Type.Object({
    hostname: Type.String(),
    guest_machine_id: Type.String(),
    ssh_host_public_key: Type.String(),
    seed_sha256: Sha256Schema,
    own_login_key: Type.Optional(Type.Boolean()),
  }),
  receipt: Type.Optional(Type.Array(ReceiptEntrySchema)),
  has_memory_base: Type.Optional(Type.Boolean()),
  slot: Type.Optional(
    Type.Object({ index: CountSchema, runtime_host: Type.String(), tap_device: Type.String() }),
  ),
  vmm: Type.Optional(
    Type.Object({
      jail_id: Type.String({ minLength: 1 }),
      name: Type.String(),
      version: Type.String(),
      uid: CountSchema,
      gid: CountSchema,
      limits: Type.Optional(VmmLimitsSchema),
      process: Type.Optional(
        Type.Object({ pid: PositiveSchema, start_time_ticks: CountSchema, boot_id: Type.String() }),
      ),
    }),
  ),
  created_at: TimeSchema,
  started_at: Type.Optional(TimeSchema),
  stopped_at: Type.Optional(TimeSchema),
  stopped_cleanly: Type.Optional(Type.Boolean()),
  paused: Type.Optional(Type.Boolean()),
  ended: Type.Optional(EndedSchema),
  restart: Type.Optional(Type.Union([Type.Literal("always"), Type.Literal("on-failure")])),
  restarts: Type.Optional(Type.Object({ count: CountSchema, next_at: Type.Optional(TimeSchema) })),
  last_slot: Type.Optional(CountSchema),
});

const SnapshotRecordSchema = Type.Object({
  id: SnapshotIdSchema,
  machine_id: MachineIdSchema,
  source_runtime_host: Type.Optional(Type.String()),
  source_tap_device: Type.Optional(Type.String()),
  image: ImageRefSchema,
  vcpus: PositiveSchema,
  memory_mib: PositiveSchema,
  consistency: Type.Union([Type.Literal("synced"), Type.Literal("crash")]),
  paused_ms: Type.Number({ minimum: 0 }),
  disk_clone: CloneSchema,
  memory_kind: Type.Optional(MemoryKindSchema),
  disk: FileSchema,
  memory: Type.Optional(FileSchema),
  vmstate: Type.Optional(FileSchema),
  manifest: FileSchema,
  created_at: TimeSchema,
});

const OperationRecordSchema = Type.Object({
  id: Type.String({ minLength: 1 }),
  kind: Type.Union([
    Type.Literal("create"),
    Type.Literal("restore"),
    Type.Literal("start"),
    Type.Literal("stop"),
    Type.Literal("pause"),
    Type.Literal("resume"),
    Type.Literal("resize"),
    Type.Literal("delete"),
    Type.Literal("snapshot"),
    Type.Literal("fork"),
    Type.Literal("fetch-snapshot"),
    Type.Literal("delete-snapshot"),
  ]),
  machine_id: Type.Optional(MachineIdSchema),
  snapshot_id: Type.Optional(SnapshotIdSchema),
  children: Type.Optional(Type.Array(MachineIdSchema)),
  error_before: Type.Optional(Type.String()),
  new_size: Type.Optional(
    Type.Object({
      memory_mib: Type.Optional(PositiveSchema),
      vcpus: Type.Optional(PositiveSchema),
      storage_bytes: Type.Optional(PositiveSchema),
    }),
  ),
  started_at: TimeSchema,
});

// The types are written out in the model, where people read them, and once more here, where the file is checked.
// These lines stop the compiler when the two differ in a field, its type or its being optional.
type Primitive = string | number | boolean | null | undefined;
type Shape<T> = T extends Primitive
  ? T
  : T extends readonly (infer Item)[]
    ? { list: Shape<Item> }
    : { [K in keyof T]-?: object extends Pick<T, K> ? { optional: Shape<T[K]> } : { required: Shape<T[K]> } };
type Same<A, B> = [Shape<A>, Shape<B>] extends [Shape<B>, Shape<A>] ? true : never;
const machineSchemaFits: Same<Static<typeof MachineRecordSchema>, MachineRecord> = true;
const snapshotSchemaFits: Same<Static<typeof SnapshotRecordSchema>, SnapshotRecord> = true;
const operationSchemaFits: Same<Static<typeof OperationRecordSchema>, OperationRecord> = true;

const validators = {
  machine: machineSchemaFits && Compile(MachineRecordSchema),
  snapshot: snapshotSchemaFits && Compile(SnapshotRecordSchema),
  operation: operationSchemaFits && Compile(OperationRecordSchema),
} satisfies Record<RecordKind, unknown>;

/** Says what is wrong with `record` as a record of `kind`, naming the field; undefined when nothing is. */
export function problemOf(kind: RecordKind, record: unknown): string | undefined {
  const validator = validators[kind];
  if (validator.Check(record)) return undefined;
  const [first] = validator.Errors(record);
  if (first === undefined) return `not a ${kind} record`;
  return `${first.instancePath === "" ? "the record" : first.instancePath.slice(1).replaceAll("/", ".")} ${first.message}`;
}
