import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { MachineRecord, OperationRecord, SnapshotRecord } from "../model/records.ts";

/** All that the daemon knows. */
export interface State {
  readonly machines: ReadonlyMap<MachineId, MachineRecord>;
  readonly snapshots: ReadonlyMap<SnapshotId, SnapshotRecord>;
  readonly operations: ReadonlyMap<string, OperationRecord>;
}

export type RecordKind = "machine" | "snapshot" | "operation";

export type Change =
  | { readonly put: "machine"; readonly record: MachineRecord }
  | { readonly put: "snapshot"; readonly record: SnapshotRecord }
  | { readonly put: "operation"; readonly record: OperationRecord }
  | { readonly drop: "machine"; readonly id: MachineId }
  | { readonly drop: "snapshot"; readonly id: SnapshotId }
  | { readonly drop: "operation"; readonly id: string };

/** A record that this version cannot use. It stays in the file as it was written, and is offered again at the next start. */
export interface SetAsideRecord {
  readonly kind: RecordKind;
  /** Undefined when not even its id could be read. */
  readonly id: string | undefined;
  /** Which field is wrong, and how: a sentence for the operator. */
  readonly reason: string;
  readonly record: unknown;
}

/** The door of the state room. */
export interface StateStore {
  /** The state as of the last durable commit. Records are never changed in place. */
  readonly state: State;
  /** Records that were not understood; dropping the same kind and id removes them too. */
  readonly setAside: readonly SetAsideRecord[];
  /**
   * Makes all changes durable together, and visible once they are. Resolves after the fdatasync that covers them;
   * commits that wait at the same time share one. Throws `disk_full` when there is no room and `internal` when the
   * disk fails or a record is malformed: nothing is changed then.
   */
  commit(...changes: readonly Change[]): Promise<void>;
  /** Waits for commits under way, folds the journal into the file and closes both. Later commits throw `shutting_down`. */
  close(): Promise<void>;
}
