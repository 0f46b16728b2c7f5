import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { Vmm } from "../vmm/types.ts";
import { becomeReady, begin, filesOf, LOG_PATH, METRICS_PATH, type Rising } from "./begin-guest.ts";
import type { HostContext } from "./context.ts";
import type { Trace } from "./trace.ts";
import { watchVmm } from "./vmm-death.ts";
import type { WayUp } from "./way-up.ts";

/** A machine that runs, and of which the state does not say so yet. */
export interface Risen {
  readonly record: MachineRecord;
  readonly vmm: Vmm;
}

/**
 * From a machine whose disk and seed lie ready and whose intent is written down to one that runs: jail, boot or load,
 * readiness, way out. What create, restore, fork and start share; each step has its undo beside it. What is left to do
 * is to `announce` it. Throws `AppError`.
 */
export async function runGuest(way: WayUp, rising: Rising): Promise<Risen> {
  const { context, trace, undo, signal } = way;
  const { machine, slot, hardware, frozen } = rising;
  const { state, network, storage, vmms, clock } = context;
  const { id } = machine;
  const files = await filesOf(context, rising);
  await trace.step("handover", () => storage.handOver(id, slot.uid, slot.gid));
  signal.throwIfAborted();

  const { jail_id, limits } = machine.vmm;
  const ref = { jail_id, uid: slot.uid, gid: slot.gid, netns_path: slot.netns_path };
  if (limits === undefined) throw new TypeError(`machine ${id} was planned without limits`);
  undo.push("jail", () => vmms.release(ref));
  const vmm = await trace.step("jail", () =>
    vmms.launch(
      { ...ref, files, log_path: LOG_PATH, metrics_path: METRICS_PATH, limits, pci: hardware.pci },
      signal,
    ),
  );
  undo.push("vmm", async () => {
    await vmm.kill();
    await vmm.detach();
  });
  const launched = { ...machine, vmm: { ...machine.vmm, process: vmm.ref.process } };
  await trace.step("launched", () => state.commit({ put: "machine", record: launched }));

  await begin(rising, vmm, way);
  // What an acknowledged create promises must survive a loss of power; the guest takes longer to boot than this.
  const [receipt] = await trace.step("ready", () =>
    Promise.all([becomeReady(way, { ...rising, machine: launched }, vmm), storage.syncMachine(id)]),
  );
  if (machine.ready === "ssh" && frozen === undefined) await vmms.noteLinuxBooted();
  // The pages that a woken guest has not touched are those of its snapshot: on them its next diff stands.
  const has_memory_base = frozen !== undefined && hardware.track_dirty_pages;
  if (has_memory_base) await storage.keepMemoryBase(id, frozen.snapshot);

  // Last: until now only the daemon reached the guest, and the guest nobody.
  undo.push("egress", () => network.closeEgress(slot));
  await trace.step("egress", () => network.openEgress(slot));
  // What a stop left behind is no longer true.
  const {
    stopped_at: _at,
    stopped_cleanly: _cleanly,
    last_slot: _slot,
    receipt: _receipt,
    ended: _ended,
    restarts,
    ...kept
  } = launched;
  const record: MachineRecord = {
    ...kept,
    ...(receipt === undefined ? {} : { receipt }),
    ...(has_memory_base ? { has_memory_base } : {}),
    ...(restarts === undefined ? {} : { restarts: { count: restarts.count } }),
    phase: "running",
    started_at: clock.now(),
  };
  return { record, vmm };
}

/** Writes down that the machines run, all at once, which ends `operation`; from then on their VMMs are watched. */
export async function announce(
  context: HostContext,
  risen: readonly Risen[],
  operation: OperationRecord,
  trace: Trace,
): Promise<void> {
  await trace.step("done", () =>
    context.state.commit(...risen.map(({ record }) => ({ put: "machine", record }) as const), {
      drop: "operation",
      id: operation.id,
    }),
  );
  for (const { record, vmm } of risen) {
    context.live.set(record.id, vmm);
    watchVmm(context, record.id, vmm);
  }
}
