import { AppError, messageOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { finishDelete } from "./delete.ts";
import { recordedHardware } from "./hardware.ts";
import { refuseWithoutHugePages } from "./huge-pages.ts";
import { type LaidDown, layDown } from "./lay-down.ts";
import { operationId } from "./operation-id.ts";
import { finishResize } from "./resize.ts";
import { announce, runGuest } from "./run-guest.ts";
import { finishStop } from "./stop.ts";
import { refuseUnlessStopped } from "./stopped.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";
import { placeIn, reserveMemory, takeSlot } from "./way-up.ts";

/**
 * POST /machines/{id}/start: a stopped machine runs again, with the disk and the identity it had, and in the slot it had
 * last where that is free. A machine that runs is answered as it is. When a step fails, or a delete ends it, the machine is
 * stopped as before. One that `isWanted` does not want by then is left as it is. Throws `AppError`.
 */
export async function startMachine(
  context: HostContext,
  id: MachineId,
  trace: Trace,
  isWanted: (record: MachineRecord) => boolean = () => true,
): Promise<MachineRecord> {
  const { state, storage, guests, clock, settings } = context;
  using entered = context.creations.enter(id);
  using _lock = await context.machineLocks.acquire(id);
  const { signal } = entered;
  signal.throwIfAborted();
  await finishEarlier(context, id, trace);
  const stopped = state.state.machines.get(id);
  if (stopped === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  if (stopped.phase === "running" || !isWanted(stopped)) return stopped;
  refuseUnlessStopped(stopped, "started");
  await refuseWithoutHugePages(recordedHardware(stopped, settings), stopped.memory_mib);
  return await withUndo(trace.log, async (undo) => {
    const way = { context, trace, undo, signal };
    const { error, ...kept } = stopped;
    const operation: OperationRecord = {
      id: operationId("start", id),
      kind: "start",
      machine_id: id,
      ...(error === undefined ? {} : { error_before: error }),
      started_at: clock.now(),
    };
    reserveMemory(way, id, stopped.memory_mib);
    const slot = await takeSlot(way, stopped.last_slot);

    const planned = { ...kept, phase: "starting" as const, ...placeIn(context, slot, stopped) };
    await trace.step("intent", () =>
      state.commit({ put: "operation", record: operation }, { put: "machine", record: planned }),
    );
    // Knows whether everything after it could be undone.
    undo.push("record", async (failed, cause) => {
      const latest = state.state.machines.get(id) ?? planned;
      if (failed.length === 0) {
        const { slot: _slot, vmm: _vmm, ...rest } = latest;
        const record = { ...rest, ...asBefore(latest, operation) };
        await state.commit({ put: "machine", record }, { drop: "operation", id: operation.id });
        return;
      }
      // The intent stays: it is taken up again, soon and by the next start of machine or daemon, or by a delete.
      const error = `the start failed (${messageOf(cause)}) and could not be undone wholly yet: ${failed.join(", ")}`;
      await state.commit({ put: "machine", record: { ...latest, phase: "failed", error } });
    });

    undo.push("disk", () => storage.takeBack(id));
    const risen = await runGuest(way, {
      machine: planned,
      slot,
      hardware: recordedHardware(stopped, settings),
      metadata: await guests.metadataOf(await storage.readSeed(id)),
    });
    await announce(context, [risen], operation, trace);
    return risen.record;
  });
}

/** Takes back a start that was cut off: also what recovery runs. The caller holds the machine's lock. */
export async function undoStart(
  context: HostContext,
  record: MachineRecord,
  operation: OperationRecord,
  trace: Trace,
): Promise<void> {
  await layDown(context, record, asBefore(record, operation), trace, operation);
}

/** What the record says once a start was taken back. A guest that was launched may have written half of what it wanted. */
function asBefore({ vmm, last_slot }: MachineRecord, { error_before }: OperationRecord): LaidDown {
  return {
    ...(error_before === undefined ? { phase: "stopped" } : { phase: "failed", error: error_before }),
    ...(vmm?.process === undefined ? {} : { stopped_cleanly: false }),
    ...(last_slot === undefined ? {} : { last_slot }),
  };
}

/** What an earlier call on this machine could not finish comes first. */
async function finishEarlier(context: HostContext, id: MachineId, trace: Trace): Promise<void> {
  const { machines, operations } = context.state.state;
  const record = machines.get(id);
  if (record === undefined) return;
  const [start, stop, resize] = (["start", "stop", "resize"] as const).map((kind) =>
    operations.get(operationId(kind, id)),
  );
  if (operations.has(operationId("delete", id))) await finishDelete(context, id, trace);
  else if (start !== undefined) await undoStart(context, record, start, trace);
  else if (stop !== undefined) await finishStop(context, record, stop, trace, false);
  else if (resize !== undefined) await finishResize(context, record, resize, trace);
}
