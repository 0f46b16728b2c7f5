import { type Static, Type } from "typebox";
import { IdSchema } from "./ids.ts";
import { ArtifactSchema, GuestConfigSchema, ReadySchema, RestartSchema } from "./machine.ts";

const closed = { additionalProperties: false } as const;

export const ArtifactKindSchema = Type.Union([
  Type.Literal("memory"),
  Type.Literal("vmstate"),
  Type.Literal("disk"),
  Type.Literal("manifest"),
]);

export type ArtifactKind = Static<typeof ArtifactKindSchema>;

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
    memory: Type.Union([Type.Literal("none"), Type.Literal("full"), Type.Literal("diff")], {
      description: "how its memory was taken: a diff was merged with its base, so it stands alone, too",
    }),
    vcpus: Type.Integer(),
    memory_mib: Type.Integer(),
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

export const VerdictReasonSchema = Type.Object(
  {
    code: Type.String({ description: "stable_snake_case" }),
    text: Type.String({ description: "a sentence" }),
    prevents: Type.Union([Type.Literal("live"), Type.Literal("disk")], {
      description: "live: it can still boot from its disk. disk: it cannot be restored at all",
    }),
  },
  { $id: "VerdictReason" },
);
/** Why a snapshot cannot be restored in one way or at all. */
export type VerdictReason = Static<typeof VerdictReasonSchema>;

export const CompatibilitySchema = Type.Object(
  {
    snapshot_id: IdSchema,
    restorable: Type.Union([Type.Literal("live"), Type.Literal("disk"), Type.Literal("no")], {
      description: "live: it goes on where it stood, or boots from its disk. disk: it boots. no: neither",
    }),
    reasons: Type.Array(Type.Ref("VerdictReason")),
  },
  { $id: "Compatibility" },
);
export type Compatibility = Omit<Static<typeof CompatibilitySchema>, "reasons"> & {
  reasons: VerdictReason[];
};

export const UploadSnapshotSchema = Type.Object(
  {
    artifacts: Type.Array(
      Type.Object(
        {
          artifact_id: Type.String({ minLength: 1, maxLength: 256 }),
          object_key: Type.String({ minLength: 1, maxLength: 4096 }),
          upload_id: Type.String({ minLength: 1, maxLength: 4096 }),
          parts: Type.Array(
            Type.Object(
              {
                part_number: Type.Integer({ minimum: 1, maximum: 10_000 }),
                offset_bytes: Type.Integer({ minimum: 0 }),
                size_bytes: Type.Integer({ minimum: 0 }),
                upload_url: Type.String({ minLength: 1, maxLength: 8192, pattern: "^https?://" }),
              },
              closed,
            ),
            { minItems: 1, maxItems: 10_000 },
          ),
        },
        closed,
      ),
      { minItems: 1, maxItems: 16 },
    ),
  },
  { $id: "UploadSnapshot", ...closed },
);
export type UploadSnapshot = Static<typeof UploadSnapshotSchema>;

export const UploadedSchema = Type.Object(
  {
    artifacts: Type.Array(
      Type.Object({
        artifact_id: Type.String(),
        completed_parts: Type.Array(Type.Object({ part_number: Type.Integer(), etag: Type.String() })),
      }),
    ),
  },
  { $id: "Uploaded" },
);
export type Uploaded = Static<typeof UploadedSchema>;

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
export type RemoteSnapshot = Static<typeof RemoteSnapshotSchema>;

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
    restart: Type.Optional(RestartSchema),
  },
  { $id: "RestoreSnapshot", ...closed },
);
export type RestoreSnapshot = Static<typeof RestoreSnapshotSchema>;
