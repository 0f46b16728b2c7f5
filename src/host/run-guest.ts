import { AppError, messageOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import { seedBootArgs } from "../guest/types.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import { GUEST_NETWORK, type Slot } from "../network/types.ts";
import type { Vmm } from "../vmm/types.ts";
import type { HostContext } from "./context.ts";
import { giveBackSlot } from "./give-back.ts";
import type { Trace } from "./trace.ts";
import type { UndoStack } from "./undo.ts";
import { watchVmm } from "./vmm-death.ts";

/** What a VMM needs beside the guest's memory, generously: a limit for what runs wild, not a budget. */
const VMM_OVERHEAD_BYTES = 256 * 1024 * 1024;
const MIB = 1024 * 1024;
const CONSOLE_TAIL_BYTES = 4096;

/** What create, restore and start have at hand on their way up. */
export interface WayUp {
  readonly context: HostContext;
  readonly trace: Trace;
  readonly undo: UndoStack;
  /** Ends the way up; what was done is undone then. */
  readonly signal: AbortSignal;
}

/**
 * Promises memory to a machine that comes up. Throws `host_full`.
 * Memory and slot belong to the record as long as it is there, and it stays when something could not be undone.
 */
export function reserveMemory({ context, undo }: WayUp, id: MachineId, memory_mib: number): void {
  context.admission.reserve(id, memory_mib);
  undo.push("memory", (failed) => {
    if (failed.length === 0) context.admission.release(id);
  });
}

/** A slot for a machine that comes up, the one it asks for where that is free. Throws `host_full`. */
export async function takeSlot({ context, trace, undo, signal }: WayUp, preferred?: number): Promise<Slot> {
  const slot = await trace.step("slot", () => context.network.acquire(signal, preferred));
  undo.push("slot", async (failed) => {
    if (failed.length === 0) await giveBackSlot(context, slot, trace);
  });
  return slot;
}

/** What the record of a machine says of its place, before anything of it exists: the slot, and a jail with a new id. */
export function placeIn({ vmms }: HostContext, slot: Slot): Required<Pick<MachineRecord, "slot" | "vmm">> {
  const { name, version } = vmms.description;
  const { index, runtime_host, tap_device, uid, gid } = slot;
  return {
    slot: { index, runtime_host, tap_device },
    vmm: { jail_id: vmms.newJailId(), name, version, uid, gid },
  };
}

/**
 * From a machine whose disk and seed lie ready and whose intent is written down to one that runs: jail, boot, readiness,
 * way out. What create, restore and start share; each step has its undo beside it. Ends `operation`.
 * Returns the record of the running machine. Throws `AppError`.
 */
export async function runGuest(
  { context, trace, undo, signal }: WayUp,
  planned: MachineRecord & Required<Pick<MachineRecord, "vmm">>,
  slot: Slot,
  operation: OperationRecord,
): Promise<MachineRecord> {
  const { state, network, storage, vmms, clock, live, settings } = context;
  const { id, vcpus, memory_mib, ready, identity } = planned;
  const files = await storage.imageFiles(planned.image);
  await trace.step("handover", () => storage.handOver(id, slot.uid, slot.gid));
  signal.throwIfAborted();

  const paths = storage.machineFiles(id);
  const { jail_id } = planned.vmm;
  const ref = { jail_id, uid: slot.uid, gid: slot.gid, netns_path: slot.netns_path };
  undo.push("jail", () => vmms.release(ref));
  const vmm = await trace.step("jail", () =>
    vmms.launch(
      {
        ...ref,
        files: [
          { source: files.kernel, path: "/kernel" },
          { source: files.initrd, path: "/initrd" },
          { source: paths.disk, path: "/disk.img" },
          { source: paths.seed, path: "/seed.img" },
          { source: paths.console, path: "/console.log" },
          { source: paths.vmmLog, path: "/vmm.log" },
        ],
        log_path: "/vmm.log",
        limits: {
          fsize_bytes: Math.max(planned.storage_bytes, memory_mib * MIB) + VMM_OVERHEAD_BYTES,
          no_file: 4096,
        },
        cgroup: { memory_bytes: memory_mib * MIB + VMM_OVERHEAD_BYTES, cpus: vcpus, pids: 128 },
      },
      signal,
    ),
  );
  undo.push("vmm", async () => {
    await vmm.kill();
    await vmm.detach();
  });
  const launched = { ...planned, vmm: { ...planned.vmm, process: vmm.ref.process } };
  await trace.step("launched", () => state.commit({ put: "machine", record: launched }));

  await trace.step("boot", () =>
    vmm.boot(
      {
        vcpus,
        memory_mib,
        kernel_path: "/kernel",
        initrd_path: "/initrd",
        boot_args: `console=ttyS0 reboot=k panic=-1 quiet 8250.nr_uarts=1 random.trust_cpu=on ${seedBootArgs("vdb", identity.seed_sha256)}`,
        disk_path: "/disk.img",
        seed_path: "/seed.img",
        console_path: "/console.log",
        tap_device: slot.tap_device,
        guest_mac: GUEST_NETWORK.guest_mac,
        io_engine: settings.driveIoEngine,
      },
      signal,
    ),
  );
  // What an acknowledged create promises must survive a loss of power; the guest takes longer to boot than this.
  await trace.step("ready", () =>
    Promise.all([waitReady(context, planned, slot, vmm, signal), storage.syncMachine(id)]),
  );
  if (ready === "ssh") await vmms.noteLinuxBooted();

  // Last: until now only the daemon reached the guest, and the guest nobody.
  undo.push("egress", () => network.closeEgress(slot));
  await trace.step("egress", () => network.openEgress(slot));
  // What a stop left behind is no longer true.
  const { stopped_at: _at, stopped_cleanly: _cleanly, last_slot: _slot, ...kept } = launched;
  const record: MachineRecord = { ...kept, phase: "running", started_at: clock.now() };
  await trace.step("done", () =>
    state.commit({ put: "machine", record }, { drop: "operation", id: operation.id }),
  );
  live.set(id, vmm);
  watchVmm(context, id, vmm);
  return record;
}

/** Waits as the machine's `ready` asks. Throws `guest_not_ready` with the tail of the console; the signal's reason when it is aborted. */
async function waitReady(
  { guests, storage, settings }: HostContext,
  { id, ready, identity }: MachineRecord,
  slot: Slot,
  vmm: Vmm,
  signal: AbortSignal,
): Promise<void> {
  const guest = { host: slot.runtime_host, ssh_host_public_key: identity.ssh_host_public_key };
  const limit = AbortSignal.timeout(settings.readyTimeoutMs);
  try {
    if (ready === "ssh") await guests.waitReady(guest, AbortSignal.any([signal, limit, vmm.gone]));
    else vmm.gone.throwIfAborted();
  } catch (error) {
    signal.throwIfAborted();
    const reason = vmm.gone.aborted
      ? "the guest ended before it was ready"
      : limit.aborted
        ? `the guest did not become ready within ${settings.readyTimeoutMs / 1000} s`
        : messageOf(error);
    const { console } = storage.machineFiles(id);
    throw new AppError("guest_not_ready", reason, {
      details: {
        ready,
        last_error: messageOf(error),
        console_tail: await storage.tail(console, CONSOLE_TAIL_BYTES),
      },
      cause: error,
    });
  }
}
