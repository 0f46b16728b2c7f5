import { AppError } from "../contract/errors.ts";
import type { StateStore } from "../state/types.ts";
import { isAlive } from "../system/process.ts";

/** What the state's records hold on the host, including records that this version does not understand. */
export interface InUse {
  readonly slots: readonly number[];
  readonly jails: ReadonlySet<string>;
  readonly machines: ReadonlySet<string>;
  readonly snapshots: ReadonlySet<string>;
  /** False when a record could not even be asked what it holds: then nothing may be called a leftover. */
  readonly complete: boolean;
}

/**
 * Everything that a record lays claim to. A record that was set aside keeps what it holds, as far as it can be read:
 * a later version, or an operator, may understand it again, and its guest may be running.
 */
export function inUse({ state, setAside }: Pick<StateStore, "state" | "setAside">): InUse {
  const records = [...state.machines.values()];
  const odd = setAside.filter(({ kind }) => kind !== "operation");
  const oddJails = odd.flatMap(({ record }) => stringAt(record, "vmm", "jail_id"));
  const oddSlots = odd.flatMap(({ record }) => numberAt(record, "slot", "index"));
  const oddIds = (wanted: "machine" | "snapshot"): string[] =>
    odd.flatMap(({ kind, id }) => (kind === wanted && id !== undefined ? [id] : []));
  return {
    slots: [...records.flatMap(({ slot }) => (slot === undefined ? [] : [slot.index])), ...oddSlots],
    jails: new Set([...records.flatMap(({ vmm }) => (vmm === undefined ? [] : [vmm.jail_id])), ...oddJails]),
    machines: new Set([...state.machines.keys(), ...oddIds("machine")]),
    snapshots: new Set([...state.snapshots.keys(), ...oddIds("snapshot")]),
    complete: odd.every(({ id }) => id !== undefined),
  };
}

/** A process that lives in each slot's namespace, by the slot's number: of the VMMs that ran and still do. */
export function livingIn({ state }: Pick<StateStore, "state">): Map<number, number> {
  const living = new Map<number, number>();
  for (const { slot, vmm } of state.machines.values()) {
    if (slot !== undefined && vmm?.process !== undefined && isAlive(vmm.process))
      living.set(slot.index, vmm.process.pid);
  }
  return living;
}

/** What is wrong with the record of this id, when it was set aside: the id is taken all the same. */
export function setAsideReason(
  { setAside }: Pick<StateStore, "setAside">,
  wanted: "machine" | "snapshot",
  id: string,
): string | undefined {
  return setAside.find((record) => record.kind === wanted && record.id === id)?.reason;
}

/**
 * Refuses (`record_set_aside`) to take an id for gone whose record was set aside: it keeps what it holds on the host, which
 * may be a guest that runs.
 */
export function refuseSetAside(
  state: Pick<StateStore, "setAside">,
  kind: "machine" | "snapshot",
  id: string,
): void {
  const reason = setAsideReason(state, kind, id);
  if (reason === undefined) return;
  throw new AppError(
    "record_set_aside",
    `the record of ${kind} ${id} in the state cannot be used (${reason}), so it is not known what there is to delete: ` +
      "run the version of the daemon that wrote it, or stop the daemon, mend or remove the record in state/state.json, and start it",
    { details: { [`${kind}_id`]: id, reason } },
  );
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function stringAt(record: unknown, outer: string, inner: string): string[] {
  const value = fieldOf(fieldOf(record, outer), inner);
  return typeof value === "string" ? [value] : [];
}

function numberAt(record: unknown, outer: string, inner: string): number[] {
  const value = fieldOf(fieldOf(record, outer), inner);
  return typeof value === "number" && Number.isInteger(value) && value >= 0 ? [value] : [];
}
