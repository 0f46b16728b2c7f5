import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { ResizeMachine } from "../contract/machine.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { operationId } from "./operation-id.ts";
import { refuseUnlessStopped } from "./stopped.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";

/**
 * POST /machines/{id}/resize: what a stopped machine has from its next start on. A disk only grows, since nobody here
 * looks into a guest's filesystem; the guest grows that when it boots. Memory is promised when the machine starts.
 * Throws `wrong_phase`, `disk_too_small`, `disk_full`.
 */
export async function resizeMachine(
  context: HostContext,
  id: MachineId,
  request: ResizeMachine,
  trace: Trace,
): Promise<MachineRecord> {
  const { state, storage, clock } = context;
  using _lock = await context.machineLocks.acquire(id);
  const record = state.state.machines.get(id);
  if (record === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  refuseUnlessStopped(record, "resized");
  const { storage_bytes = record.storage_bytes } = request;
  if (storage_bytes < record.storage_bytes) {
    throw new AppError(
      "disk_too_small",
      `storage_bytes is ${storage_bytes}, but the disk of machine ${id} has ${record.storage_bytes} bytes, and a disk only grows`,
      { details: { storage_bytes, minimum_bytes: record.storage_bytes } },
    );
  }
  const operation: OperationRecord = {
    id: operationId("resize", id),
    kind: "resize",
    machine_id: id,
    new_size: request,
    started_at: clock.now(),
  };
  await withUndo(trace.log, async (undo) => {
    await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
    undo.push("intent", () => state.commit({ drop: "operation", id: operation.id }));
    await trace.step("disk", () => storage.growDisk(id, storage_bytes));
  });
  // From here on it only goes forward: a disk that has grown is not cut off again.
  return await finishResize(context, record, operation, trace);
}

/** The part that only goes forward: also what recovery runs. The caller holds the lock of the machine, which is stopped. */
export async function finishResize(
  { state, storage }: HostContext,
  record: MachineRecord,
  operation: OperationRecord,
  trace: Trace,
): Promise<MachineRecord> {
  const { storage_bytes = record.storage_bytes, ...rest } = operation.new_size ?? {};
  // Returns how long the disk is, which an earlier try may have made longer than the record says.
  const grown = await storage.growDisk(record.id, storage_bytes);
  const after: MachineRecord = { ...record, ...rest, storage_bytes: grown };
  await trace.step("done", () =>
    state.commit({ put: "machine", record: after }, { drop: "operation", id: operation.id }),
  );
  return after;
}
