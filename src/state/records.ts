import { isId } from "../contract/ids.ts";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { MachineRecord, OperationRecord, SnapshotRecord } from "../model/records.ts";
import { problemOf } from "./schema.ts";
import type { Change, RecordKind, SetAsideRecord, State } from "./types.ts";

/** A change as it was read from the journal: its record has not been looked at yet. */
export type RawChange =
  | { readonly put: RecordKind; readonly record: unknown }
  | { readonly drop: RecordKind; readonly id: string };

/** The records as the file holds them, each as it was written. */
export interface RawRecords {
  readonly machines: readonly unknown[];
  readonly snapshots: readonly unknown[];
  readonly operations: readonly unknown[];
}

function idOf(record: unknown): string | undefined {
  if (typeof record !== "object" || record === null || !("id" in record)) return undefined;
  return typeof record.id === "string" ? record.id : undefined;
}

/** All records in memory: those that serve, and those that were not understood. */
export class Records implements State {
  readonly machines = new Map<MachineId, MachineRecord>();
  readonly snapshots = new Map<SnapshotId, SnapshotRecord>();
  readonly operations = new Map<string, OperationRecord>();
  readonly setAside: SetAsideRecord[] = [];

  /** Takes in what the file holds. A malformed record, or a second one with the same id, is set aside. */
  load(raw: RawRecords): void {
    for (const [kind, records] of [
      ["machine", raw.machines],
      ["snapshot", raw.snapshots],
      ["operation", raw.operations],
    ] as const) {
      for (const record of records) {
        const id = idOf(record);
        const problem =
          id !== undefined && this.#has(kind, id) ? "a second record with this id" : problemOf(kind, record);
        if (problem === undefined) this.#put(kind, record);
        else this.setAside.push({ kind, id, reason: problem, record });
      }
    }
  }

  /**
   * Applies one change of the journal. A malformed record takes the place of the good one before it,
   * because what that says is no longer true, and is set aside.
   */
  replay(change: RawChange): void {
    if ("drop" in change) {
      this.#drop(change.drop, change.id);
      return;
    }
    const problem = problemOf(change.put, change.record);
    if (problem === undefined) {
      this.#put(change.put, change.record);
      return;
    }
    const id = idOf(change.record);
    if (id !== undefined) this.#drop(change.put, id);
    this.setAside.push({ kind: change.put, id, reason: problem, record: change.record });
  }

  /** Applies changes that were checked before they were written. */
  apply(changes: readonly Change[]): void {
    for (const change of changes) this.replay(change);
  }

  /** All records, those set aside behind the good ones of their kind. */
  toRaw(): RawRecords {
    const aside = (kind: RecordKind): unknown[] =>
      this.setAside.filter((entry) => entry.kind === kind).map((entry) => entry.record);
    return {
      machines: [...this.machines.values(), ...aside("machine")],
      snapshots: [...this.snapshots.values(), ...aside("snapshot")],
      operations: [...this.operations.values(), ...aside("operation")],
    };
  }

  #map(kind: RecordKind): Map<string, unknown> {
    const maps = { machine: this.machines, snapshot: this.snapshots, operation: this.operations };
    return maps[kind];
  }

  #has(kind: RecordKind, id: string): boolean {
    return this.#map(kind).has(id);
  }

  #put(kind: RecordKind, record: unknown): void {
    const id = idOf(record);
    if (id !== undefined) this.#map(kind).set(id, record);
  }

  #drop(kind: RecordKind, id: string): void {
    this.#map(kind).delete(id);
    for (let index = this.setAside.length - 1; index >= 0; index -= 1) {
      const entry = this.setAside[index];
      if (entry?.kind === kind && entry.id === id) this.setAside.splice(index, 1);
    }
  }
}

/** What is wrong with `change`, in a sentence that names the field; undefined when it may be written. */
export function problemOfChange(change: Change): string | undefined {
  if ("put" in change) return problemOf(change.put, change.record);
  return change.drop === "operation" || isId(change.id)
    ? undefined
    : `not an id: ${JSON.stringify(change.id)}`;
}
