import { Type } from "typebox";

/** Ids are chosen by the client and become names of folders: nothing else may pass. */
export const ID_PATTERN = "^[a-z0-9][a-z0-9-]{0,62}$";

export type MachineId = string & { readonly __id: "machine" };
export type SnapshotId = string & { readonly __id: "snapshot" };

const idRegExp = new RegExp(ID_PATTERN);

/** True when `text` may be an id of a machine, a snapshot or an image. */
export function isId(text: string): boolean {
  return idRegExp.test(text);
}

/** Brands `text` as a machine id. Throws a plain `TypeError`: callers validate first. */
export function machineId(text: string): MachineId {
  if (!isId(text)) throw new TypeError(`not a machine id: ${JSON.stringify(text)}`);
  return text as MachineId;
}

/** Brands `text` as a snapshot id. Throws a plain `TypeError`: callers validate first. */
export function snapshotId(text: string): SnapshotId {
  if (!isId(text)) throw new TypeError(`not a snapshot id: ${JSON.stringify(text)}`);
  return text as SnapshotId;
}

export const IdSchema = Type.String({
  pattern: ID_PATTERN,
  description: "1 to 63 characters: lower-case letters, digits and hyphens, not starting with a hyphen",
});
