import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { operationId } from "./operation-id.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";

/** How long a death takes to be noticed, generously. */
const NOTICE_MS = 1000;

/** POST /machines/{id}/pause: the guest stands still, with all it has in memory, until it is resumed. Idempotent. */
export async function pauseMachine(
  context: HostContext,
  id: MachineId,
  trace: Trace,
): Promise<MachineRecord> {
  return await turn(context, id, "pause", trace);
}

/** POST /machines/{id}/resume: the guest goes on where it stood. Idempotent. */
export async function resumeMachine(
  context: HostContext,
  id: MachineId,
  trace: Trace,
): Promise<MachineRecord> {
  return await turn(context, id, "resume", trace);
}

/**
 * Pauses or resumes a running machine. The VMM is asked even when the record says that it is so already: that costs
 * nothing, and mends a guest that a failure left otherwise. A failure leaves the guest as it was. Throws `wrong_phase`.
 */
async function turn(
  context: HostContext,
  id: MachineId,
  kind: "pause" | "resume",
  trace: Trace,
): Promise<MachineRecord> {
  const { state, live, clock } = context;
  using _lock = await context.machineLocks.acquire(id);
  const before = state.state.machines.get(id);
  if (before === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  if (before.phase !== "running") {
    throw new AppError("wrong_phase", `machine ${id} is ${before.phase}; only a running one can ${kind}`, {
      details: { phase: before.phase },
    });
  }
  const vmm = live.get(id);
  if (vmm === undefined) throw new AppError("vmm_failed", `the VMM of machine ${id} is gone`);
  return await withUndo(trace.log, async (undo) => {
    const operation: OperationRecord = {
      id: operationId(kind, id),
      kind,
      machine_id: id,
      started_at: clock.now(),
    };
    await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
    // A guest that could not be put back is put back by the next start, which the intent tells of it.
    undo.push("intent", async (failed) => {
      if (failed.length === 0) await state.commit({ drop: "operation", id: operation.id });
    });
    undo.push("guest", () => holdAsRecorded(context, id));
    await trace.step(kind, () => (kind === "pause" ? vmm.pause() : vmm.resume()));

    const { paused: _paused, ...kept } = before;
    const record: MachineRecord = kind === "pause" ? { ...kept, paused: true } : kept;
    await trace.step("done", () =>
      state.commit(
        { put: "machine", record },
        { drop: "operation", id: operationId("pause", id) },
        { drop: "operation", id: operationId("resume", id) },
      ),
    );
    return record;
  });
}

/**
 * Makes the guest stand still or go on, as its record says: how whatever changed that for a while, or failed to change it
 * for good, is taken back. Does nothing where no VMM lives.
 */
export async function holdAsRecorded({ state, live }: HostContext, id: MachineId): Promise<void> {
  const vmm = live.get(id);
  if (vmm === undefined || vmm.gone.aborted) return;
  try {
    // Both are allowed in either state, so it is right whatever failed.
    if (state.state.machines.get(id)?.paused === true) await vmm.pause();
    else await vmm.resume();
  } catch (error) {
    // What failed before may have been its death, which is noticed a moment later.
    if (!(await vmm.waitGone(NOTICE_MS))) throw error;
  }
}
