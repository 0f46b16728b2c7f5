import { messageOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord } from "../model/records.ts";
import type { Vmm } from "../vmm/types.ts";
import type { HostContext } from "./context.ts";
import { finishDelete } from "./delete.ts";
import { howItEnded } from "./how-it-ended.ts";
import { type LaidDown, layDown } from "./lay-down.ts";
import { operationId } from "./operation-id.ts";
import { nextRestart } from "./restart-policy.ts";
import { finishStop } from "./stop.ts";
import { Trace } from "./trace.ts";

/** Takes note when the VMM of a running machine ends by itself. */
export function watchVmm(context: HostContext, id: MachineId, vmm: Vmm): void {
  const ended = (): void => takeNote(context, id, vmm);
  if (vmm.gone.aborted) ended();
  else vmm.gone.addEventListener("abort", ended, { once: true });
}

/** Records the death of `vmm`, unless somebody did already, or ended it. A failure is in the log, and can be tried again. */
export function takeNote(context: HostContext, id: MachineId, vmm: Vmm): void {
  noteDeath(context, id, vmm).catch((error: unknown) => {
    context.log.error(
      { machine_id: id, reason: messageOf(error) },
      "the end of a VMM could not be recorded yet",
    );
  });
}

async function noteDeath(context: HostContext, id: MachineId, vmm: Vmm): Promise<void> {
  using _work = context.underWay.enter();
  using _lock = await context.machineLocks.acquire(id);
  // A stop or a delete that held the lock ended this VMM itself.
  if (context.live.get(id) !== vmm) return;
  const { machines, operations } = context.state.state;
  const record = machines.get(id);
  if (record?.phase !== "running") return;
  // Or it could not be finished after it had done so: then this is the time to.
  const stop = operations.get(operationId("stop", id));
  const trace = new Trace(context.log);
  if (operations.has(operationId("delete", id))) await finishDelete(context, id, trace);
  else if (stop !== undefined) await finishStop(context, record, stop, trace, false);
  else await recordDeath(context, record);
}

/**
 * A running machine whose VMM is gone becomes `stopped` when its guest ended by itself, `failed` otherwise, and tells how.
 * Its slot, jail and memory go; its disk stays. Where its policy says so, it is to be started again. The caller holds the
 * machine's lock.
 */
export async function recordDeath(context: HostContext, record: MachineRecord): Promise<void> {
  const { log, restartWanted } = context;
  const { ended, error } = await howItEnded(context, record);
  const phase = error === undefined ? "stopped" : "failed";
  const restarts = nextRestart(record, phase, ended.at);
  const how: LaidDown = {
    phase,
    ...(error === undefined ? {} : { error }),
    stopped_at: ended.at,
    ended,
    ...(restarts === undefined ? {} : { restarts }),
  };
  const { restarts: _restarts, ...rest } = record;
  await layDown(context, rest, how, new Trace(log));
  log.warn({ machine_id: record.id, phase, ...ended }, "a VMM ended by itself");
  if (restarts !== undefined) restartWanted.emit("wanted");
}
