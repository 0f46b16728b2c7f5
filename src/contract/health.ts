import { type Static, Type } from "typebox";

export const WarningSchema = Type.Object(
  {
    code: Type.String({ description: "stable_snake_case" }),
    severity: Type.Union([Type.Literal("info"), Type.Literal("warning"), Type.Literal("error")]),
    text: Type.String({ description: "a sentence an operator can act on" }),
  },
  { $id: "Warning" },
);
/** Something about the host that an operator should know. */
export type Warning = Static<typeof WarningSchema>;

export const HealthSchema = Type.Object(
  {
    ok: Type.Boolean(),
    version: Type.String(),
    node_version: Type.String(),
    uptime_seconds: Type.Number(),
    root_dir: Type.String(),
    tag: Type.String({ description: "six hex digits that mark everything this daemon owns on the host" }),
    vmm: Type.Object({
      name: Type.String(),
      version: Type.String(),
      firecracker_path: Type.String(),
      jailer_path: Type.String(),
      reason: Type.String({ description: "why this pair was taken" }),
    }),
    machines: Type.Object({
      starting: Type.Integer(),
      running: Type.Integer(),
      stopped: Type.Integer(),
      failed: Type.Integer(),
    }),
    memory: Type.Object({
      total_mib: Type.Integer(),
      committed_mib: Type.Integer(),
      limit_mib: Type.Integer(),
    }),
    disk_clone: Type.Union([Type.Literal("reflink"), Type.Literal("copy")]),
    warnings: Type.Array(Type.Ref("Warning")),
  },
  { $id: "Health" },
);
export type Health = Omit<Static<typeof HealthSchema>, "warnings"> & { warnings: Warning[] };

export const ErrorAnswerSchema = Type.Object(
  {
    error: Type.String({ description: "a sentence a person can act on" }),
    code: Type.String({ description: "stable_snake_case, see docs/errors.md" }),
    details: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  { $id: "Error" },
);
export type ErrorAnswer = Static<typeof ErrorAnswerSchema>;
