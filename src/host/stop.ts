import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { addressOf } from "./guest-address.ts";
import { layDown } from "./lay-down.ts";
import { operationId } from "./operation-id.ts";
import type { Trace } from "./trace.ts";

/** POST /machines/{id}/stop: a clean shutdown within the limit, then SIGKILL. Keeps disk and identity, frees slot and jail. */
export async function stopMachine(context: HostContext, id: MachineId, trace: Trace): Promise<void> {
  using _lock = await context.machineLocks.acquire(id);
  const { state, clock } = context;
  const record = state.state.machines.get(id);
  if (record === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  if (record.phase === "stopped" || record.phase === "failed") {
    // One that is to be started again is not, from now on.
    const { restarts, ...rest } = record;
    if (restarts !== undefined) await state.commit({ put: "machine", record: rest });
    return;
  }
  if (record.phase === "starting") {
    // Left by a create or a start that could neither end nor be undone.
    throw new AppError("wrong_phase", `machine ${id} never came up; it can only be deleted`, {
      details: { phase: record.phase },
    });
  }
  const operation: OperationRecord = {
    id: operationId("stop", id),
    kind: "stop",
    machine_id: id,
    started_at: clock.now(),
  };
  await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
  const clean = await trace.step("shutdown", () => shutDown(context, record));
  await finishStop(context, record, operation, trace, clean);
}

/** The part of a stop that only goes forward: also what recovery runs. The caller holds the machine's lock. */
export async function finishStop(
  context: HostContext,
  record: MachineRecord,
  operation: OperationRecord,
  trace: Trace,
  clean: boolean,
): Promise<void> {
  const { clock } = context;
  const { restarts: _restarts, ...rest } = record;
  const how = { phase: "stopped", stopped_cleanly: clean, stopped_at: clock.now() } as const;
  await layDown(context, rest, how, trace, operation);
}

/** Asks the guest to go, and waits for it within the limit. Returns whether it went by itself. */
async function shutDown({ guests, live, settings }: HostContext, record: MachineRecord): Promise<boolean> {
  const vmm = live.get(record.id);
  if (vmm === undefined || record.slot === undefined) return false;
  const deadline = performance.now() + settings.stopTimeoutMs;
  const left = (): number => Math.max(0, deadline - performance.now());
  const guest = addressOf(record.slot.runtime_host, record.identity);
  // One that stands still could not hear it. Where it cannot be woken, SIGKILL at the limit is what is left.
  if (record.paused === true) await vmm.resume().catch(() => {});
  const asked = record.ready === "ssh" && (await guests.shutdown(guest, left() / 2));
  // Without SSH the keyboard is what is left; a guest that does not listen to it is ended at the limit.
  if (!asked) await vmm.sendCtrlAltDel().catch(() => {});
  return await vmm.waitGone(left());
}
