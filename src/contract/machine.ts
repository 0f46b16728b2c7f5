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

const VcpusSchema = Type.Integer({ minimum: 1, maximum: 32 });
const MemoryMibSchema = Type.Integer({ minimum: 64, maximum: 1048576, description: "guest memory in MiB" });
const StorageBytesSchema = Type.Integer({
  minimum: 1048576,
  maximum: 17592186044416,
  description: "size of the system disk in bytes",
});

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
  },
  { $id: "CreateMachine", ...closed },
);
export type CreateMachine = Static<typeof CreateMachineSchema>;

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

export const PortSchema = Type.Object(
  {
    name: Type.String(),
    port: Type.Integer(),
    host_port: Type.Optional(Type.Integer()),
    protocol: Type.Union([Type.Literal("tcp"), Type.Literal("udp")]),
  },
  { $id: "Port" },
);

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
      }),
    ),
    created_at: Type.String({ description: "RFC 3339, UTC" }),
    started_at: Type.Optional(Type.String({ description: "RFC 3339, UTC" })),
    stopped_at: Type.Optional(Type.String({ description: "RFC 3339, UTC" })),
  },
  { $id: "Machine" },
);
export type Machine = Static<typeof MachineSchema>;

export const MachineAnswerSchema = Type.Object({ machine: Type.Ref("Machine") }, { $id: "MachineAnswer" });
export const MachinesAnswerSchema = Type.Object(
  { machines: Type.Array(Type.Ref("Machine")) },
  { $id: "MachinesAnswer" },
);
