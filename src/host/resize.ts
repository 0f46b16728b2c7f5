import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { ResizeMachine } from "../contract/machine.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { recordedHardware, refuseMisfit } from "./hardware.ts";
import { operationId } from "./operation-id.ts";
import { refuseUnlessStopped } from "./stopped.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";

/** Disks are whole blocks of this many bytes. */
const BLOCK_BYTES = 4096;

/**
 * POST /machines/{id}/resize: what a stopped machine has from its next start on, or more disk for a running one. A disk
 * only grows, since nobody here looks into a guest's filesystem; the guest grows that when it boots, or by itself once it
 * sees a larger device. Memory is promised when the machine starts.
 * Throws `wrong_phase`, `bad_request`, `disk_too_small`, `not_supported`, `disk_full`, `vmm_failed`.
 */
export async function resizeMachine(
  context: HostContext,
  id: MachineId,
  request: ResizeMachine,
  trace: Trace,
): Promise<MachineRecord> {
  const { state, storage, clock, settings } = context;
  using _lock = await context.machineLocks.acquire(id);
  const record = state.state.machines.get(id);
  if (record === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  const { storage_bytes = record.storage_bytes, vcpus, memory_mib } = request;
  if (record.phase === "running" && vcpus === undefined && memory_mib === undefined)
    refuseBeyondLimit(record, storage_bytes);
  else refuseUnlessStopped(record, "given other memory or vCPUs");
  refuseMisfit(recordedHardware(record, settings), {
    vcpus: vcpus ?? record.vcpus,
    memory_mib: memory_mib ?? record.memory_mib,
  });
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

/**
 * The part that only goes forward: also what recovery runs. The caller holds the lock of the machine, which is stopped,
 * or runs and is told that its disk has grown. Throws `vmm_failed` when a running one has no VMM to tell.
 */
export async function finishResize(
  { state, storage, live }: HostContext,
  record: MachineRecord,
  operation: OperationRecord,
  trace: Trace,
): Promise<MachineRecord> {
  const { storage_bytes = record.storage_bytes, ...rest } = operation.new_size ?? {};
  // Returns how long the disk is, which an earlier try may have made longer than the record says.
  const grown = await storage.growDisk(record.id, storage_bytes);
  if (record.phase === "running") {
    const vmm = live.get(record.id);
    if (vmm === undefined) throw new AppError("vmm_failed", `the VMM of machine ${record.id} is gone`);
    await trace.step("told", () => vmm.diskGrew());
  }
  const after: MachineRecord = { ...record, ...rest, storage_bytes: grown };
  await trace.step("done", () =>
    state.commit({ put: "machine", record: after }, { drop: "operation", id: operation.id }),
  );
  return after;
}

/** A VMM may write no file beyond the limit it was launched under: the kernel would end it in the middle of a write. */
function refuseBeyondLimit({ id, vmm }: MachineRecord, storage_bytes: number): void {
  const most = vmm?.limits?.fsize_bytes;
  if (most !== undefined && Math.ceil(storage_bytes / BLOCK_BYTES) * BLOCK_BYTES <= most) return;
  const sentence =
    most === undefined
      ? `machine ${id} runs since before the limits of its VMM were written down: stop and start it, and its disk can grow while it runs`
      : `the disk of machine ${id} can grow to ${most} bytes while it runs; stop the machine, and it can grow further`;
  throw new AppError("not_supported", sentence, {
    details: {
      field: "storage_bytes",
      storage_bytes,
      ...(most === undefined ? {} : { most_while_running_bytes: most }),
    },
  });
}
