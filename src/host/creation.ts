import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";

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
  using _lock = await context.machineLocks.acquire(id);
  const existing = context.state.state.machines.get(id);
  if (existing !== undefined) {
    if (existing.request_sha256 === request_sha256) return { record: existing, created: false };
    throw new AppError("machine_exists", `a machine ${id} exists and was asked for with another body`, {
      details: { machine_id: id, phase: existing.phase },
    });
  }
  const cancel = new AbortController();
  context.creations.set(id, cancel);
  try {
    return { record: await make(cancel.signal), created: true };
  } finally {
    context.creations.delete(id);
  }
}
