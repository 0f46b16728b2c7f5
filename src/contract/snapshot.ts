import { type Static, Type } from "typebox";
import { IdSchema } from "./ids.ts";
import { ArtifactSchema, GuestConfigSchema, ReadySchema } from "./machine.ts";

const closed = { additionalProperties: false } as const;

export const ArtifactKindSchema = Type.Union([
  Type.Literal("memory"),
  Type.Literal("vmstate"),
  Type.Literal("disk"),
  Type.Literal("manifest"),
]);

export const CreateSnapshotSchema = Type.Object(
  {
    snapshot_id: IdSchema,
    memory: Type.Optional(Type.Union([Type.Boolean(), Type.Literal("full"), Type.Literal("diff")])),
  },
  { $id: "CreateSnapshot", ...closed },
);
export type CreateSnapshot = Static<typeof CreateSnapshotSchema>;

export const SnapshotArtifactSchema = Type.Object(
  {
    id: Type.String(),
    kind: ArtifactKindSchema,
    name: Type.String(),
    size_bytes: Type.Integer(),
    sha256_hex: Type.Optional(Type.String()),
  },
  { $id: "SnapshotArtifact" },
);
export type SnapshotArtifact = Static<typeof SnapshotArtifactSchema>;

export const SnapshotSchema = Type.Object(
  {
    id: IdSchema,
    machine_id: IdSchema,
    source_runtime_host: Type.Optional(Type.String()),
    source_tap_device: Type.Optional(Type.String()),
    created_at: Type.String({ description: "RFC 3339, UTC" }),
    consistency: Type.Union([Type.Literal("synced"), Type.Literal("crash")], {
      description: "synced: the guest wrote its caches out first. crash: as after a loss of power",
    }),
    paused_ms: Type.Number({ description: "how long the guest stood still, in milliseconds" }),
    disk_clone: Type.Union([Type.Literal("reflink"), Type.Literal("copy")]),
    size_bytes: Type.Integer({ description: "apparent size of the disk" }),
    artifacts: Type.Array(Type.Ref("SnapshotArtifact")),
  },
  { $id: "Snapshot" },
);
export type Snapshot = Omit<Static<typeof SnapshotSchema>, "artifacts"> & { artifacts: SnapshotArtifact[] };

export const SnapshotCreatedSchema = Type.Object(
  { snapshot: Type.Ref("Snapshot"), artifacts: Type.Array(Type.Ref("SnapshotArtifact")) },
  { $id: "SnapshotCreated" },
);
export const SnapshotAnswerSchema = Type.Object(
  { snapshot: Type.Ref("Snapshot") },
  { $id: "SnapshotAnswer" },
);
export const SnapshotsAnswerSchema = Type.Object(
  { snapshots: Type.Array(Type.Ref("Snapshot")) },
  { $id: "SnapshotsAnswer" },
);

/** A snapshot that another host uploaded, as a restore names it. */
export const RemoteSnapshotSchema = Type.Object(
  {
    snapshot_id: IdSchema,
    machine_id: IdSchema,
    image_id: Type.String({ maxLength: 256 }),
    source_runtime_host: Type.Optional(Type.String({ maxLength: 256 })),
    source_tap_device: Type.Optional(Type.String({ maxLength: 256 })),
    artifacts: Type.Array(
      Type.Object(
        {
          id: Type.String({ maxLength: 256 }),
          kind: ArtifactKindSchema,
          name: Type.String({ maxLength: 256 }),
          size_bytes: Type.Integer({ minimum: 0 }),
          sha256_hex: Type.Optional(Type.String({ pattern: "^[0-9a-f]{64}$" })),
          object_key: Type.Optional(Type.String({ maxLength: 4096 })),
          download_url: Type.Optional(Type.String({ maxLength: 4096 })),
        },
        closed,
      ),
      { maxItems: 16 },
    ),
  },
  { $id: "RemoteSnapshot", ...closed },
);

export const RestoreSnapshotSchema = Type.Object(
  {
    machine_id: IdSchema,
    artifact: Type.Optional(ArtifactSchema),
    vcpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 32 })),
    memory_mib: Type.Optional(Type.Integer({ minimum: 64, maximum: 1048576 })),
    storage_bytes: Type.Optional(Type.Integer({ minimum: 1048576, maximum: 17592186044416 })),
    local_snapshot: Type.Optional(Type.Object({ snapshot_id: IdSchema }, closed)),
    snapshot: Type.Optional(RemoteSnapshotSchema),
    guest_config: Type.Optional(GuestConfigSchema),
    memory: Type.Optional(Type.Boolean()),
    ready: Type.Optional(ReadySchema),
  },
  { $id: "RestoreSnapshot", ...closed },
);
export type RestoreSnapshot = Static<typeof RestoreSnapshotSchema>;
