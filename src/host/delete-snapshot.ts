import type { SnapshotId } from "../contract/ids.ts";
import type { OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { refuseSetAside } from "./in-use.ts";
import { operationId } from "./operation-id.ts";
import type { Trace } from "./trace.ts";

/** DELETE /snapshots/{id}: idempotent. Machines made from it keep their disks. */
export async function deleteSnapshot(context: HostContext, id: SnapshotId, trace: Trace): Promise<void> {
  using _lock = await context.snapshotLocks.acquire(id);
  const { state, clock } = context;
  if (!state.state.snapshots.has(id)) return refuseSetAside(state, "snapshot", id);
  const operation: OperationRecord = {
    id: operationId("delete-snapshot", id),
    kind: "delete-snapshot",
    snapshot_id: id,
    started_at: clock.now(),
  };
  await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
  await finishDeleteSnapshot(context, id, operation, trace);
}

/** The part that only goes forward: also what recovery runs. */
export async function finishDeleteSnapshot(
  { state, storage }: HostContext,
  id: SnapshotId,
  operation: OperationRecord,
  trace: Trace,
): Promise<void> {
  await trace.step("files", () => storage.removeSnapshot(id));
  await trace.step("done", () =>
    state.commit({ drop: "snapshot", id }, { drop: "operation", id: operation.id }),
  );
}
