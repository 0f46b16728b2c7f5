import { messageOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord } from "../model/records.ts";
import type { Vmm } from "../vmm/types.ts";
import type { HostContext } from "./context.ts";

const LOG_TAIL_BYTES = 4096;

/** Takes note when the VMM of a running machine ends by itself. */
export function watchVmm(context: HostContext, id: MachineId, vmm: Vmm): void {
  const ended = (): void => {
    noteDeath(context, id, vmm).catch((error: unknown) => {
      context.log.error(
        { machine_id: id, reason: messageOf(error) },
        "the end of a VMM could not be recorded",
      );
    });
  };
  if (vmm.gone.aborted) ended();
  else vmm.gone.addEventListener("abort", ended, { once: true });
}

async function noteDeath(context: HostContext, id: MachineId, vmm: Vmm): Promise<void> {
  using _lock = await context.machineLocks.acquire(id);
  // A stop or a delete that held the lock ended this VMM itself.
  if (context.live.get(id) !== vmm) return;
  const record = context.state.state.machines.get(id);
  if (record?.phase !== "running") return;
  await recordDeath(context, record);
}

/**
 * A running machine whose VMM is gone becomes `stopped` when its guest ended by itself, `failed` otherwise.
 * Its slot, jail and memory go; its disk stays. The caller holds the machine's lock.
 */
export async function recordDeath(context: HostContext, record: MachineRecord): Promise<void> {
  const { state, network, storage, vmms, clock, live, admission, log } = context;
  const { id, slot, vmm, error: _error, ...kept } = record;
  const files = storage.machineFiles(id);
  const vmmLog = await storage.tail(files.vmmLog, LOG_TAIL_BYTES);
  const console = await storage.tail(files.console, LOG_TAIL_BYTES);
  const clean = /exiting successfully/i.test(vmmLog) && !/kernel panic/i.test(console);
  const lastLine = console.trimEnd().split("\n").at(-1) ?? "";
  if (vmm !== undefined && slot !== undefined) {
    await vmms.release({ ...vmm, netns_path: network.slot(slot.index).netns_path });
  }
  await storage.takeBack(id);
  if (slot !== undefined) await network.release(network.slot(slot.index));
  await live.get(id)?.detach();
  live.delete(id);
  admission.release(id);
  const after: MachineRecord = {
    ...kept,
    id,
    phase: clean ? "stopped" : "failed",
    ...(clean ? {} : { error: `the VMM ended unexpectedly; the console's last line was: ${lastLine}` }),
    stopped_at: clock.now(),
  };
  await state.commit({ put: "machine", record: after });
  log.warn({ machine_id: id, phase: after.phase, console_tail: console }, "a VMM ended by itself");
}
