import { type Static, Type } from "typebox";

const ResourceSchema = Type.Union([
  Type.Literal("namespace"),
  Type.Literal("link"),
  Type.Literal("route"),
  Type.Literal("nftables"),
  Type.Literal("sysctl"),
  Type.Literal("claim"),
  Type.Literal("jail"),
  Type.Literal("process"),
  Type.Literal("cgroup"),
  Type.Literal("folder"),
  Type.Literal("file"),
  Type.Literal("socket"),
  Type.Literal("operation"),
]);

export const AuditItemSchema = Type.Object(
  {
    resource: ResourceSchema,
    name: Type.String(),
    owner: Type.Optional(
      Type.String({
        description: "machine <id>, snapshot <id>, operation <id>, pool or daemon; absent: nobody's",
      }),
    ),
    status: Type.Union(
      [Type.Literal("ok"), Type.Literal("leaked"), Type.Literal("missing"), Type.Literal("altered")],
      {
        description:
          "leaked: it is there and nobody's. missing: it should be there. altered: it is not as it should be",
      },
    ),
    detail: Type.Optional(Type.String({ description: "what is wrong with it" })),
  },
  { $id: "AuditItem" },
);
/** One thing on the host that is the daemon's, or should be there. */
export type AuditItem = Static<typeof AuditItemSchema>;

export const AuditSchema = Type.Object(
  {
    items: Type.Array(Type.Ref("AuditItem")),
    clean: Type.Boolean({ description: "true when each item is ok" }),
  },
  { $id: "Audit" },
);
export type Audit = Omit<Static<typeof AuditSchema>, "items"> & { items: AuditItem[] };

export const RepairedItemSchema = Type.Object(
  {
    resource: ResourceSchema,
    name: Type.String(),
    action: Type.String({ description: "what was done, or tried" }),
    ok: Type.Boolean(),
    reason: Type.Optional(Type.String({ description: "why it could not be mended" })),
  },
  { $id: "RepairedItem" },
);
/** What became of something that was not as it should be. */
export type RepairedItem = Static<typeof RepairedItemSchema>;

export const RepairSchema = Type.Object(
  {
    repaired: Type.Array(Type.Ref("RepairedItem")),
    audit: Type.Ref("Audit", { description: "what is there afterwards" }),
  },
  { $id: "Repair" },
);
export type Repair = { repaired: RepairedItem[]; audit: Audit };
