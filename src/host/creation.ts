import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { finishDelete } from "./delete.ts";
import { setAsideReason } from "./in-use.ts";
import { operationId } from "./operation-id.ts";
import { Trace } from "./trace.ts";

/**
 * What create and restore share: one at a time for an id; the same request again is answered with the machine that is
 * there, another one is refused; and a delete, or the daemon's end, can break it off through the signal.
 */
export async function creation(
  context: HostContext,
  id: MachineId,
  request_sha256: string,
  make: (signal: AbortSignal) => Promise<MachineRecord>,
): Promise<{ record: MachineRecord; created: boolean }> {
  // Entered before its turn comes: a delete ends all that were asked for before it.
  using entered = context.creations.enter(id);
  using _lock = await context.machineLocks.acquire(id);
  entered.signal.throwIfAborted();
  await undoEarlier(context, id);
  const existing = context.state.state.machines.get(id);
  if (existing !== undefined) {
    if (existing.request_sha256 === request_sha256) return { record: existing, created: false };
    throw new AppError("machine_exists", `a machine ${id} exists and was asked for with another body`, {
      details: { machine_id: id, phase: existing.phase },
    });
  }
  const unreadable = setAsideReason(context.state, "machine", id);
  if (unreadable !== undefined) {
    throw new AppError("machine_exists", `the state has a machine ${id} that cannot be read: ${unreadable}`);
  }
  return { record: await make(entered.signal), created: true };
}

/** An earlier create or restore of this id that could not be undone when it failed: its machine was never there. */
async function undoEarlier(context: HostContext, id: MachineId): Promise<void> {
  const { operations } = context.state.state;
  if (!(["create", "restore"] as const).some((kind) => operations.has(operationId(kind, id)))) return;
  await finishDelete(context, id, new Trace(context.log));
}
