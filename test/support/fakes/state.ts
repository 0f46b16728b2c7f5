import type { Change, SetAsideRecord, State, StateStore } from "../../../src/state/types.ts";

/** A state that forgets with the process, and can be told to refuse commits. */
export class FakeState implements StateStore {
  readonly #machines = new Map<string, unknown>();
  readonly #snapshots = new Map<string, unknown>();
  readonly #operations = new Map<string, unknown>();
  readonly setAside: SetAsideRecord[] = [];
  /** Every change in the order it was made. */
  readonly changes: Change[] = [];
  /** Throws this instead of committing, as long as it is set. */
  failure: Error | undefined;

  get state(): State {
    return {
      machines: this.#machines,
      snapshots: this.#snapshots,
      operations: this.#operations,
    } as unknown as State;
  }

  async commit(...changes: readonly Change[]): Promise<void> {
    await Promise.resolve();
    if (this.failure !== undefined) throw this.failure;
    const maps = { machine: this.#machines, snapshot: this.#snapshots, operation: this.#operations };
    for (const change of changes) {
      this.changes.push(change);
      if ("put" in change) maps[change.put].set(change.record.id, structuredClone(change.record));
      else maps[change.drop].delete(change.id);
    }
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
