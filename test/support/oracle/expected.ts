import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Machine } from "../../../src/contract/machine.ts";
import type { Snapshot } from "../../../src/contract/snapshot.ts";
import type { MachineRecord, OperationRecord, SnapshotRecord } from "../../../src/model/records.ts";
import { decodeDocument } from "../../../src/state/document.ts";
import { decodeJournal } from "../../../src/state/journal.ts";
import type { Scope } from "./item.ts";
import { slotOfNamespace } from "./place.ts";
import type { ExpectedMachine, ExpectedState } from "./state.ts";

/** What the state cannot tell. */
export interface Circumstances {
  readonly daemonRuns: boolean;
  /** Default: the daemon's, 8. */
  readonly poolSize?: number;
}

/**
 * The state as a power loss at this moment would leave it: `state/state.json` and the journal's lines after it.
 * Throws what the state room throws for a file that cannot be used.
 */
export async function expectedFromFiles(scope: Scope, now: Circumstances): Promise<ExpectedState> {
  const folder = join(scope.rootDir, "state");
  const [journal, document] = await Promise.all([
    readFile(join(folder, "journal")).then(decodeJournal),
    readFile(join(folder, "state.json")).then(decodeDocument),
  ]);
  const kept = {
    machine: byId(document.records.machines),
    snapshot: byId(document.records.snapshots),
    operation: byId(document.records.operations),
  };
  for (const { changes } of journal.lines.filter(({ seq }) => seq > document.seq)) {
    for (const change of changes) {
      if ("drop" in change) kept[change.drop].delete(change.id);
      else for (const [id, record] of byId([change.record])) kept[change.put].set(id, record);
    }
  }
  const machines = [...kept.machine.values()] as MachineRecord[];
  const snapshots = [...kept.snapshot.values()] as SnapshotRecord[];
  const operations = [...kept.operation.values()] as OperationRecord[];
  return {
    machines: machines.map(expectedOfRecord),
    snapshots: snapshots.map(({ id }) => ({ id })),
    operations: operations.map(({ id, kind }) => `${kind} ${id}`),
    poolSize: now.poolSize ?? 8,
    daemonRuns: now.daemonRuns,
  };
}

/** The same from the daemon's answers: GET /machines, and GET /machines/{id}/snapshots of each. */
export function expectedFromAnswers(
  scope: Scope,
  machines: readonly Machine[],
  snapshots: readonly Snapshot[],
  now: Circumstances,
): ExpectedState {
  return {
    machines: machines.map((machine) => expectedOfAnswer(scope, machine)),
    snapshots: snapshots.map(({ id }) => ({ id })),
    poolSize: now.poolSize ?? 8,
    daemonRuns: now.daemonRuns,
  };
}

function expectedOfRecord({ id, phase, slot, vmm }: MachineRecord): ExpectedMachine {
  const place = slot === undefined ? {} : { slot: slot.index };
  if (vmm === undefined) return { id, phase, ...place };
  const { jail_id, uid, gid, process } = vmm;
  const pid = process === undefined ? {} : { pid: process.pid };
  return { id, phase, ...place, vmm: { jail_id, uid, gid, ...pid } };
}

function expectedOfAnswer(scope: Scope, { id, phase, vmm }: Machine): ExpectedMachine {
  if (vmm === undefined) return { id, phase };
  const { jail_id, uid, gid, pid, netns } = vmm;
  const slot = slotOfNamespace(scope, netns);
  return { id, phase, ...(slot === undefined ? {} : { slot }), vmm: { jail_id, uid, gid, pid } };
}

function byId(list: readonly unknown[]): Map<string, unknown> {
  return new Map(
    list.flatMap((record): [string, unknown][] =>
      typeof record === "object" && record !== null && "id" in record && typeof record.id === "string"
        ? [[record.id, record]]
        : [],
    ),
  );
}
