import { messageOf } from "../contract/errors.ts";
import type { MachineRecord } from "../model/records.ts";
import { sideBySide } from "../system/side-by-side.ts";
import type { HostContext } from "./context.ts";
import { logMended } from "./patrol.ts";
import { repair } from "./repair.ts";
import { takeUp } from "./take-up.ts";
import { recordDeath, watchVmm } from "./vmm-death.ts";

/** Those that are taken over together share the changes of the firewall's table. */
const ADOPTED_AT_ONCE = 32;

/**
 * What a start does with what a former run left: takes over the machines that run, finishes or undoes the operations
 * that were under way, and mends what is not as it should be. Runs before the first request, so it needs no locks.
 * The network room is open already and has the slots of all machines in the state.
 */
export async function recover(context: HostContext): Promise<void> {
  const { state, log, admission } = context;
  const { machines, operations } = state.state;
  // What a stop or a delete was ending is not to be taken over, nor is its end a death.
  const ending = new Set(
    [...operations.values()]
      .filter(({ kind }) => kind === "stop" || kind === "delete")
      .map(({ machine_id }) => machine_id),
  );
  const running: MachineRecord[] = [];
  for (const machine of machines.values()) {
    if (machine.vmm !== undefined) admission.adopt(machine.id, machine.memory_mib);
    if (machine.phase === "running" && !ending.has(machine.id)) running.push(machine);
  }
  await sideBySide(running, ADOPTED_AT_ONCE, (machine) =>
    settle(context, machine.id, () => adoptOrRecordDeath(context, machine)),
  );
  // Whether a fetched snapshot stays is known once it is clear which restores of it there are.
  const order = [...operations.values()].sort(
    (a, b) => Number(a.kind === "fetch-snapshot") - Number(b.kind === "fetch-snapshot"),
  );
  for (const operation of order) {
    await settle(context, operation.id, async () => {
      const direction = await takeUp(context, operation);
      log.info({ operation: operation.id, direction }, "an operation of a former run was taken up");
    });
  }
  await settle(context, "the host", async () => void logMended(log, await repair(context, "some")));
}

/** One thing that cannot be mended must not keep the daemon from serving the rest. */
async function settle({ log }: HostContext, what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    log.error({ what, reason: messageOf(error) }, "recovery could not settle this");
  }
}

async function adoptOrRecordDeath(context: HostContext, machine: MachineRecord): Promise<void> {
  const { vmms, network, live, log } = context;
  const { id, slot, vmm } = machine;
  const adopted =
    slot === undefined || vmm === undefined
      ? undefined
      : await vmms.adopt({ ...vmm, netns_path: network.slot(slot.index).netns_path });
  if (adopted === undefined || slot === undefined) {
    await recordDeath(context, machine);
    return;
  }
  live.set(id, adopted);
  watchVmm(context, id, adopted);
  await network.openEgress(network.slot(slot.index));
  log.info({ machine_id: id, pid: adopted.ref.process.pid }, "a running machine was taken over");
}
