import { messageOf } from "../contract/errors.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { finishDelete } from "./delete.ts";
import { finishDeleteSnapshot } from "./delete-snapshot.ts";
import { undoFetch } from "./fetch-snapshot.ts";
import { undoFork } from "./fork.ts";
import { inUse } from "./in-use.ts";
import { holdAsRecorded } from "./pause.ts";
import { finishResize } from "./resize.ts";
import { undoSnapshot } from "./snapshot.ts";
import { undoStart } from "./start.ts";
import { finishStop } from "./stop.ts";
import { Trace } from "./trace.ts";
import { recordDeath, watchVmm } from "./vmm-death.ts";

/**
 * What a start does with what a former run left: takes over the machines that run, finishes or undoes the operations
 * that were under way, and removes what nobody owns. Runs before the first request, so it needs no locks.
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
  for (const machine of machines.values()) {
    if (machine.vmm !== undefined) admission.adopt(machine.id, machine.memory_mib);
    if (machine.phase === "running" && !ending.has(machine.id))
      await settle(context, machine.id, () => adoptOrRecordDeath(context, machine));
  }
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
  await settle(context, "leftovers", () => removeLeftovers(context));
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

async function takeUp(context: HostContext, operation: OperationRecord): Promise<"forward" | "back"> {
  const { state } = context;
  const trace = new Trace(context.log);
  const { machine_id, snapshot_id } = operation;
  switch (operation.kind) {
    case "create":
    case "restore":
      // The client got no answer: the machine was never there.
      if (machine_id !== undefined) await finishDelete(context, machine_id, trace);
      return "back";
    case "start": {
      const machine = machine_id === undefined ? undefined : state.state.machines.get(machine_id);
      if (machine === undefined) await state.commit({ drop: "operation", id: operation.id });
      else await undoStart(context, machine, operation, trace);
      return "back";
    }
    case "pause":
    case "resume":
      if (machine_id !== undefined) await holdAsRecorded(context, machine_id);
      await state.commit({ drop: "operation", id: operation.id });
      return "back";
    case "resize": {
      const machine = machine_id === undefined ? undefined : state.state.machines.get(machine_id);
      const withVmm = machine !== undefined && context.live.has(machine.id);
      if (machine === undefined || (machine.vmm !== undefined && !withVmm))
        await state.commit({ drop: "operation", id: operation.id });
      else await finishResize(context, machine, operation, trace);
      return "forward";
    }
    case "delete":
      if (machine_id !== undefined) await finishDelete(context, machine_id, trace);
      return "forward";
    case "stop": {
      const machine = machine_id === undefined ? undefined : state.state.machines.get(machine_id);
      if (machine?.phase === "running") await finishStop(context, machine, operation, trace, false);
      else await state.commit({ drop: "operation", id: operation.id });
      return "forward";
    }
    case "snapshot":
      await undoSnapshot(context, operation);
      return "back";
    case "fork":
      await undoFork(context, operation, trace);
      return "back";
    case "fetch-snapshot":
      await undoFetch(context, operation, trace);
      return "back";
    case "delete-snapshot":
      if (snapshot_id !== undefined) await finishDeleteSnapshot(context, snapshot_id, operation, trace);
      return "forward";
  }
}

/** Jails and folders that no record owns: made before their intent was durable, or after it was undone. */
async function removeLeftovers(context: HostContext): Promise<void> {
  const { state, vmms, storage, log } = context;
  const owned = inUse(state);
  if (!owned.complete) {
    log.warn({}, "a record that cannot be read may own anything: nothing is removed as a leftover");
    return;
  }
  for (const jail_id of await vmms.listJails()) {
    if (owned.jails.has(jail_id)) continue;
    await settle(context, `jail ${jail_id}`, async () => {
      await vmms.release({ jail_id, uid: -1, gid: -1, netns_path: "" });
      log.warn({ jail_id }, "a jail that nobody owns was removed");
    });
  }
  const { machines, snapshots } = await storage.list();
  for (const id of machines) {
    if (owned.machines.has(id)) continue;
    await settle(context, `files of machine ${id}`, async () => {
      await storage.removeMachine(id);
      log.warn({ machine_id: id }, "files of a machine that is not in the state were removed");
    });
  }
  for (const id of snapshots) {
    if (owned.snapshots.has(id)) continue;
    await settle(context, `files of snapshot ${id}`, async () => {
      await storage.removeSnapshot(id);
      log.warn({ snapshot_id: id }, "files of a snapshot that is not in the state were removed");
    });
  }
}
