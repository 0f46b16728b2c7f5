import { type Static, Type } from "typebox";
import { IdSchema } from "./ids.ts";

const closed = { additionalProperties: false } as const;
const Sha256Schema = Type.String({
  pattern: "^[0-9a-f]{64}$",
  description: "SHA-256, 64 lower-case hex digits",
});
const UrlSchema = Type.String({ minLength: 1, maxLength: 4096, description: "an http, https or file URL" });
/** One line without control characters: it ends up in files of the guest that are read line by line. */
const LineSchema = Type.String({ minLength: 1, maxLength: 16384, pattern: "^[^\\u0000-\\u001f\\u007f]+$" });

export const HOSTNAME_PATTERN =
  "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$";

export const ArtifactSchema = Type.Object(
  {
    kernel_image_url: UrlSchema,
    rootfs_url: UrlSchema,
    kernel_sha256: Type.Optional(Sha256Schema),
    rootfs_sha256: Type.Optional(Sha256Schema),
  },
  { $id: "Artifact", ...closed },
);
export type Artifact = Static<typeof ArtifactSchema>;

export const GuestConfigSchema = Type.Object(
  {
    hostname: Type.Optional(Type.String({ pattern: HOSTNAME_PATTERN, maxLength: 64 })),
    authorized_keys: Type.Optional(Type.Array(LineSchema, { maxItems: 64 })),
    trusted_user_ca_keys: Type.Optional(Type.Array(LineSchema, { maxItems: 16 })),
    login_webhook: Type.Optional(
      Type.Object(
        {
          url: Type.String({ minLength: 1, maxLength: 4096, pattern: '^https?://[^\\s"\\\\]+$' }),
          bearer_token: Type.Optional(
            Type.String({ minLength: 1, maxLength: 4096, pattern: "^[\\x21-\\x7e]+$" }),
          ),
        },
        closed,
      ),
    ),
  },
  { $id: "GuestConfig", ...closed },
);
export type GuestConfig = Static<typeof GuestConfigSchema>;

/** `ssh`: the guest answers with the host key it was given. `started`: the VMM runs the guest. */
export const ReadySchema = Type.Union([Type.Literal("ssh"), Type.Literal("started")]);
export type Ready = Static<typeof ReadySchema>;

export const RestartSchema = Type.Union(
  [Type.Literal("always"), Type.Literal("on-failure"), Type.Literal("never")],
  {
    description:
      "whether it is started again when it ends by itself: always, when it failed, or never (default); after 1 s, then twice as long each time, 60 s at most",
  },
);
export type Restart = Static<typeof RestartSchema>;

const VcpusSchema = Type.Integer({ minimum: 1, maximum: 32 });
const MemoryMibSchema = Type.Integer({ minimum: 64, maximum: 1048576, description: "guest memory in MiB" });
const StorageBytesSchema = Type.Integer({
  minimum: 1048576,
  maximum: 17592186044416,
  description: "size of the system disk in bytes",
});

/**
 * A token bucket of Firecracker's: `size` tokens (bytes or operations) that fill up again in `refill_time_ms`,
 * and `one_time_burst` more at the start.
 */
const TokenBucketSchema = Type.Object(
  {
    size: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description: "bytes or operations" }),
    refill_time_ms: Type.Integer({ minimum: 1, maximum: 86_400_000 }),
    one_time_burst: Type.Optional(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })),
  },
  closed,
);
export type TokenBucket = Static<typeof TokenBucketSchema>;

const RateLimiterSchema = Type.Object(
  {
    bandwidth: Type.Optional(TokenBucketSchema),
    ops: Type.Optional(TokenBucketSchema),
  },
  { minProperties: 1, description: "bandwidth counts bytes; ops counts operations or packets", ...closed },
);
export type RateLimiter = Static<typeof RateLimiterSchema>;

const RateLimitsSchema = Type.Object(
  {
    disk: Type.Optional(RateLimiterSchema),
    network_rx: Type.Optional(RateLimiterSchema),
    network_tx: Type.Optional(RateLimiterSchema),
  },
  { description: "of the system disk, of what the guest receives, and of what it sends", ...closed },
);
export type RateLimits = Static<typeof RateLimitsSchema>;

/** Firecracker's static CPU templates, by their own names. */
const CpuTemplateSchema = Type.Union(
  [
    Type.Literal("C3"),
    Type.Literal("T2"),
    Type.Literal("T2S"),
    Type.Literal("T2CL"),
    Type.Literal("T2A"),
    Type.Literal("V1N1"),
  ],
  { description: "a static CPU template of Firecracker's" },
);
export type CpuTemplate = Static<typeof CpuTemplateSchema>;

/**
 * Arguments for the guest's kernel, behind ours. Not what we set ourselves: the root device, the seed, the console and
 * what a panic does.
 */
const BootArgsSchema = Type.String({
  minLength: 1,
  maxLength: 1024,
  pattern: "^[\\x20-\\x7e]+$",
  description: "kernel arguments behind the daemon's own",
});

/** What a create may say of the guest's hardware beside vcpus and memory. */
const hardwareFields = {
  rate_limits: Type.Optional(RateLimitsSchema),
  cpu_template: Type.Optional(CpuTemplateSchema),
  huge_pages: Type.Optional(
    Type.Union([Type.Literal("None"), Type.Literal("2M")], {
      description: "2M: guest memory from the host's pool of huge pages",
    }),
  ),
  smt: Type.Optional(Type.Boolean({ description: "simultaneous multithreading: two vCPUs share a core" })),
  track_dirty_pages: Type.Optional(
    Type.Boolean({ description: "lets memory snapshots be diffs; costs some speed" }),
  ),
  boot_args: Type.Optional(BootArgsSchema),
} as const;

export const CreateMachineSchema = Type.Object(
  {
    machine_id: IdSchema,
    artifact: Type.Optional(ArtifactSchema),
    image: Type.Optional(IdSchema),
    memory_mib: Type.Optional(MemoryMibSchema),
    vcpus: Type.Optional(VcpusSchema),
    storage_bytes: Type.Optional(StorageBytesSchema),
    user_volume_ids: Type.Optional(Type.Array(Type.String({ maxLength: 256 }), { maxItems: 64 })),
    guest_config: Type.Optional(GuestConfigSchema),
    ready: Type.Optional(ReadySchema),
    restart: Type.Optional(RestartSchema),
    ...hardwareFields,
  },
  { $id: "CreateMachine", ...closed },
);
export type CreateMachine = Static<typeof CreateMachineSchema>;
/** The optional hardware of a machine, as a request names it. */
export type HardwareOptions = Pick<CreateMachine, keyof typeof hardwareFields>;

export const ForkMachineSchema = Type.Object(
  {
    machine_id: Type.Optional(IdSchema),
    count: Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })),
    id_prefix: Type.Optional(
      Type.String({
        pattern: "^[a-z0-9][a-z0-9-]{0,59}$",
        description: "the children are <id_prefix>1, <id_prefix>2, …",
      }),
    ),
    guest_config: Type.Optional(GuestConfigSchema),
    ready: Type.Optional(ReadySchema),
    restart: Type.Optional(RestartSchema),
  },
  {
    $id: "ForkMachine",
    description:
      "machine_id for one child; count and id_prefix for several; ready is the source's unless it is given",
    ...closed,
  },
);
export type ForkMachine = Static<typeof ForkMachineSchema>;

export const ReceiptEntrySchema = Type.Object(
  {
    item: Type.Union([
      Type.Literal("hostname"),
      Type.Literal("machine_id"),
      Type.Literal("ssh_host_key"),
      Type.Literal("authorized_keys"),
      Type.Literal("clock"),
      Type.Literal("randomness"),
      Type.Literal("connections"),
      Type.Literal("resolvers"),
    ]),
    done: Type.Boolean(),
    how: Type.String({ description: "how it was done, or why it could not be" }),
  },
  { $id: "ReceiptEntry" },
);
/** One thing that makes a live restore a machine of its own. */
export type ReceiptEntry = Static<typeof ReceiptEntrySchema>;

/** What a live restore makes its own, in the order in which it is told. */
export const RECEIPT_ITEMS = [
  "hostname",
  "machine_id",
  "ssh_host_key",
  "authorized_keys",
  "clock",
  "randomness",
  "connections",
  "resolvers",
] as const satisfies readonly ReceiptEntry["item"][];

export const ResizeMachineSchema = Type.Object(
  {
    memory_mib: Type.Optional(MemoryMibSchema),
    vcpus: Type.Optional(VcpusSchema),
    storage_bytes: Type.Optional(StorageBytesSchema),
  },
  { $id: "ResizeMachine", minProperties: 1, ...closed },
);
export type ResizeMachine = Static<typeof ResizeMachineSchema>;

export const PhaseSchema = Type.Union([
  Type.Literal("starting"),
  Type.Literal("running"),
  Type.Literal("stopped"),
  Type.Literal("failed"),
]);
export type Phase = Static<typeof PhaseSchema>;

export const EndedSchema = Type.Object(
  {
    at: Type.String({ description: "RFC 3339, UTC" }),
    how: Type.Union(
      [
        Type.Literal("reset"),
        Type.Literal("panic"),
        Type.Literal("killed"),
        Type.Literal("host_restarted"),
        Type.Literal("disk_gone"),
        Type.Literal("unknown"),
      ],
      {
        description:
          "reset: the guest rebooted or powered off. panic: its kernel panicked. killed: a signal, or the host's memory ran out. host_restarted: the host went down under it. disk_gone: somebody removed its disk. unknown: the VMM failed",
      },
    ),
    console_tail: Type.String({ description: "the end of what the guest wrote to its console" }),
  },
  { $id: "Ended" },
);
/** How a machine ended that nobody stopped. */
export type Ended = Static<typeof EndedSchema>;

export const PortSchema = Type.Object(
  {
    name: Type.String(),
    port: Type.Integer(),
    host_port: Type.Optional(Type.Integer()),
    protocol: Type.Union([Type.Literal("tcp"), Type.Literal("udp")]),
  },
  { $id: "Port" },
);

/** What a machine has beside vCPUs, memory and disk: what its request said, and what the settings did. */
export const HardwareSchema = Type.Object({
  io_engine: Type.Union([Type.Literal("Sync"), Type.Literal("Async")]),
  pci: Type.Boolean(),
  rate_limits: Type.Optional(RateLimitsSchema),
  cpu_template: Type.Optional(CpuTemplateSchema),
  huge_pages: Type.Union([Type.Literal("None"), Type.Literal("2M")]),
  smt: Type.Boolean(),
  track_dirty_pages: Type.Boolean(),
  boot_args: Type.Optional(Type.String()),
});

export const MachineSchema = Type.Object(
  {
    id: IdSchema,
    artifact: Type.Object({
      kernel_image_url: Type.String(),
      rootfs_url: Type.String(),
      kernel_sha256: Type.String(),
      rootfs_sha256: Type.String(),
    }),
    image: Type.Optional(Type.String({ description: "name of the local image it was made from" })),
    snapshot_id: Type.Optional(Type.String({ description: "snapshot it was restored from" })),
    system_volume_id: Type.Optional(Type.String()),
    user_volume_ids: Type.Array(Type.String()),
    runtime_host: Type.Optional(Type.String({ description: "address at which the host reaches the guest" })),
    ports: Type.Array(PortSchema),
    guest_ssh_host_public_key: Type.Optional(Type.String()),
    guest_user: Type.String({ description: "the user that the authorized keys log in as" }),
    hostname: Type.String(),
    guest_machine_id: Type.String({ description: "contents of the guest's /etc/machine-id" }),
    phase: PhaseSchema,
    paused: Type.Optional(
      Type.Boolean({
        description: "true while the guest of a running machine stands still; absent otherwise",
      }),
    ),
    error: Type.Optional(Type.String()),
    vcpus: Type.Integer(),
    memory_mib: Type.Integer(),
    storage_bytes: Type.Integer(),
    ready: ReadySchema,
    disk_clone: Type.Union([Type.Literal("reflink"), Type.Literal("copy")]),
    vmm: Type.Optional(
      Type.Object({
        name: Type.String(),
        version: Type.String(),
        pid: Type.Integer(),
        uid: Type.Integer(),
        gid: Type.Integer(),
        jail_id: Type.String(),
        netns: Type.String(),
        new_pid_ns: Type.Boolean({ description: "the VMM is process 1 of a pid namespace of its own" }),
        seccomp: Type.String({ description: "the filter of its threads: default is the VMM's own" }),
        limits: Type.Object({
          no_file: Type.Integer({ description: "most open files" }),
          fsize_bytes: Type.Integer({ description: "largest file it may write" }),
        }),
        cgroup: Type.Object({
          memory_bytes: Type.Integer({ description: "guest memory and the VMM's own" }),
          cpus: Type.Number({ description: "processors it may use" }),
          pids: Type.Integer(),
        }),
      }),
    ),
    hardware: Type.Object({ ...HardwareSchema.properties, cache_type: Type.Literal("Writeback") }),
    restart: RestartSchema,
    restarts: Type.Optional(
      Type.Object(
        {
          count: Type.Integer({
            description: "how often it was started again since it last ran for ten minutes",
          }),
          next_at: Type.Optional(Type.String({ description: "when it is started again: RFC 3339, UTC" })),
        },
        { description: "of a machine that ended by itself and is started again" },
      ),
    ),
    ended: Type.Optional(
      Type.Ref("Ended", { description: "how it ended, until it runs again; absent when it was stopped" }),
    ),
    receipt: Type.Optional(
      Type.Array(Type.Ref("ReceiptEntry"), {
        description: "of a machine that was woken from a memory snapshot: what was made its own, and how",
      }),
    ),
    created_at: Type.String({ description: "RFC 3339, UTC" }),
    started_at: Type.Optional(Type.String({ description: "RFC 3339, UTC" })),
    stopped_at: Type.Optional(Type.String({ description: "RFC 3339, UTC" })),
  },
  { $id: "Machine" },
);
export type Machine = Omit<Static<typeof MachineSchema>, "receipt" | "ended"> & {
  receipt?: ReceiptEntry[];
  ended?: Ended;
};

export const MachineAnswerSchema = Type.Object({ machine: Type.Ref("Machine") }, { $id: "MachineAnswer" });
export const ForkedSchema = Type.Object(
  {
    machines: Type.Array(Type.Ref("Machine"), { description: "the children, in the order of their numbers" }),
  },
  { $id: "Forked" },
);
export const MachinesAnswerSchema = Type.Object(
  { machines: Type.Array(Type.Ref("Machine")) },
  { $id: "MachinesAnswer" },
);
