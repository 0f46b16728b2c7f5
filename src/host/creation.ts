import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { setAsideReason } from "./in-use.ts";

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
