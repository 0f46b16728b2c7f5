import { AppError, messageOf } from "../contract/errors.ts";
import { type SnapshotId, snapshotId } from "../contract/ids.ts";
import type { RemoteSnapshot } from "../contract/snapshot.ts";
import type { Manifest } from "../model/manifest.ts";
import type { OperationRecord, SnapshotRecord } from "../model/records.ts";
import type { FinishedSnapshot } from "../storage/types.ts";
import { snapshotOf } from "./artifacts.ts";
import type { HostContext } from "./context.ts";
import { setAsideReason } from "./in-use.ts";
import { unlessEnded } from "./locks.ts";
import { operationId } from "./operation-id.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

/**
 * Runs `restore` with a snapshot that nobody deletes meanwhile, and fetches it first where it is not here and `remote`
 * says from where; restores that want the same one fetch it once. A fetched snapshot stays once a machine came of it.
 * When `restore` fails, the one that was fetched for it is removed again, unless a machine came of it in another way.
 * Takes the snapshot's lock itself. Throws `snapshot_not_found`, as `Storage.fetchSnapshot`, and as `restore`.
 */
export async function withSnapshot<Result>(
  context: HostContext,
  id: SnapshotId,
  remote: RemoteSnapshot | undefined,
  { signal, trace }: { readonly signal: AbortSignal; readonly trace: Trace },
  restore: (record: SnapshotRecord) => Promise<Result>,
): Promise<Result> {
  const { state, snapshotLocks, log } = context;
  const fetchId = operationId("fetch-snapshot", id);
  for (;;) {
    const fetched = remote !== undefined && (await fetchSnapshot(context, remote, signal, trace));
    try {
      using _lock = await unlessEnded(snapshotLocks.acquireShared(id), signal);
      // Whoever fetched it may have failed and removed it again, just before this one held it.
      if (remote !== undefined && !fetched && !state.state.snapshots.has(id)) continue;
      const result = await restore(snapshotOf(state, id));
      if (state.state.operations.has(fetchId)) {
        // Left behind, it is settled by the next start: there is a machine that came of the snapshot.
        await state
          .commit({ drop: "operation", id: fetchId })
          .catch((error: unknown) =>
            log.error({ snapshot_id: id, reason: messageOf(error) }, "an intent stays"),
          );
      }
      return result;
    } catch (error) {
      if (fetched) await removeAgain(context, id, trace);
      throw error;
    }
  }
}

/**
 * Makes the snapshot of another host one of this, unless it is here already: true when it was fetched. Its intent stays
 * until a machine came of it. Takes the snapshot's lock alone, so that two do not fetch it.
 */
async function fetchSnapshot(
  context: HostContext,
  remote: RemoteSnapshot,
  signal: AbortSignal,
  trace: Trace,
): Promise<boolean> {
  const { state, storage, clock, snapshotLocks } = context;
  const id = snapshotId(remote.snapshot_id);
  using _lock = await unlessEnded(snapshotLocks.acquire(id), signal);
  if (state.state.snapshots.has(id)) return false;
  const unreadable = setAsideReason(state, "snapshot", id);
  if (unreadable !== undefined) {
    throw new AppError(
      "snapshot_exists",
      `the state has a snapshot ${id} that cannot be read: ${unreadable}`,
    );
  }
  const operation: OperationRecord = {
    id: operationId("fetch-snapshot", id),
    kind: "fetch-snapshot",
    snapshot_id: id,
    started_at: clock.now(),
  };
  // What an earlier try could not remove.
  if (state.state.operations.has(operation.id)) await storage.removeSnapshot(id);
  await withUndo(trace.log, async (undo) => {
    await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
    undo.push("intent", async (failed) => {
      if (failed.length === 0) await state.commit({ drop: "operation", id: operation.id });
    });
    undo.push("files", () => storage.removeSnapshot(id));
    const found = await trace.step("fetch", () => storage.fetchSnapshot(remote, signal));
    const record = recordOf(found);
    await trace.step("fetched", () => state.commit({ put: "snapshot", record }));
  });
  return true;
}

/** The restore that the snapshot was fetched for has failed. What cannot be removed now is removed by the next start. */
async function removeAgain(context: HostContext, id: SnapshotId, trace: Trace): Promise<void> {
  const { state, snapshotLocks, log } = context;
  using _lock = await snapshotLocks.acquire(id);
  const operation = state.state.operations.get(operationId("fetch-snapshot", id));
  if (operation === undefined) return;
  try {
    await undoFetch(context, operation, trace);
  } catch (error) {
    log.error({ snapshot_id: id, reason: messageOf(error) }, "a fetched snapshot could not be removed again");
  }
}

/**
 * Takes back a fetch of which no machine came: also what recovery runs, once restores are taken back. The caller holds
 * the snapshot's lock.
 */
export async function undoFetch(
  { state, storage }: HostContext,
  operation: OperationRecord,
  trace: Trace,
): Promise<void> {
  const id = operation.snapshot_id;
  const done = { drop: "operation", id: operation.id } as const;
  if (id === undefined || cameOf(state, id)) return await state.commit(done);
  await trace.step("files", () => storage.removeSnapshot(id));
  await state.commit({ drop: "snapshot", id }, done);
}

/** True when a machine that came up was made from the snapshot; one that is on its way, or failed on it, does not count. */
function cameOf({ state }: HostContext["state"], id: SnapshotId): boolean {
  return [...state.machines.values()].some(
    ({ snapshot_id, phase, vmm }) =>
      snapshot_id === id &&
      (phase === "running" || phase === "stopped" || (phase === "failed" && vmm === undefined)),
  );
}

/** The record of a snapshot that another host made. Throws `snapshot_invalid` when its time is none. */
function recordOf({
  manifest_content,
  ...files
}: FinishedSnapshot & { manifest_content: Manifest }): SnapshotRecord {
  const { snapshot_id, machine_id, created_at } = manifest_content;
  const { source_runtime_host, source_tap_device } = manifest_content;
  if (!TIME.test(created_at)) {
    throw new AppError("snapshot_invalid", "the manifest's created_at is no time in UTC", {
      details: { artifact: "manifest", field: "created_at", found: created_at },
    });
  }
  return {
    id: snapshot_id,
    machine_id,
    ...(source_runtime_host === undefined ? {} : { source_runtime_host }),
    ...(source_tap_device === undefined ? {} : { source_tap_device }),
    image: manifest_content.image,
    vcpus: manifest_content.vcpus,
    memory_mib: manifest_content.memory_mib,
    consistency: manifest_content.consistency,
    // No guest of this host stood still for it.
    paused_ms: 0,
    disk_clone: "copy",
    memory_kind: manifest_content.memory_kind,
    ...files,
    created_at,
  };
}
