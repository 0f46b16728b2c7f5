import { AppError, messageOf } from "../contract/errors.ts";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { GuestConfig, Ready } from "../contract/machine.ts";
import { seedBootArgs } from "../guest/types.ts";
import type { ImageRef, MachineRecord } from "../model/records.ts";
import { GUEST_NETWORK } from "../network/types.ts";
import type { Vmm } from "../vmm/types.ts";
import type { HostContext } from "./context.ts";
import { giveBackSlot } from "./give-back.ts";
import { operationId } from "./operation-id.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";
import { watchVmm } from "./vmm-death.ts";

/** A machine that is wanted, with everything decided but nothing done. */
export interface MachinePlan {
  readonly operation: "create" | "restore";
  readonly id: MachineId;
  readonly request_sha256: string;
  readonly image: ImageRef;
  /** Whose disk it starts from; without it, the image's. */
  readonly snapshot_id?: SnapshotId;
  readonly vcpus: number;
  readonly memory_mib: number;
  readonly storage_bytes: number | undefined;
  readonly ready: Ready;
  readonly guest_config: GuestConfig;
}

/** What a VMM needs beside the guest's memory, generously: a limit for what runs wild, not a budget. */
const VMM_OVERHEAD_BYTES = 256 * 1024 * 1024;
const MIB = 1024 * 1024;
const CONSOLE_TAIL_BYTES = 4096;

/**
 * Brings a new machine up: place, disk, identity, jail, boot, readiness. The steps stand in their order, each with
 * its undo beside it; when one fails, or `signal` ends it, everything before it is undone.
 * Returns the record of the running machine. Throws `AppError`.
 */
export async function bringUp(
  context: HostContext,
  plan: MachinePlan,
  trace: Trace,
  signal: AbortSignal,
): Promise<MachineRecord> {
  const { state, network, storage, guests, vmms, clock, admission, live, settings } = context;
  const { id } = plan;
  return await withUndo(trace.log, async (undo) => {
    const operation = {
      id: operationId(plan.operation, id),
      kind: plan.operation,
      machine_id: id,
      started_at: clock.now(),
    };
    admission.reserve(id, plan.memory_mib);
    // Memory and slot belong to the record as long as it is there, and it stays when something could not be undone.
    undo.push("memory", (failed) => {
      if (failed.length === 0) admission.release(id);
    });

    const files = await storage.imageFiles(plan.image);
    const hostname = plan.guest_config.hostname ?? id;
    const identity = await trace.step("identity", () =>
      guests.makeIdentity({
        hostname,
        default_user: plan.image.default_user,
        guest_config: plan.guest_config,
        resolvers: network.resolvers,
      }),
    );

    const slot = await trace.step("slot", () => network.acquire(signal));
    undo.push("slot", async (failed) => {
      if (failed.length === 0) await giveBackSlot(context, slot, trace);
    });

    const jail_id = vmms.newJailId();
    let record: MachineRecord = {
      id,
      phase: "starting",
      request_sha256: plan.request_sha256,
      image: plan.image,
      ...(plan.snapshot_id === undefined ? {} : { snapshot_id: plan.snapshot_id }),
      vcpus: plan.vcpus,
      memory_mib: plan.memory_mib,
      storage_bytes: plan.storage_bytes ?? plan.image.rootfs_size_bytes,
      ready: plan.ready,
      disk_clone: storage.cloneMode,
      identity: {
        hostname,
        guest_machine_id: identity.guest_machine_id,
        ssh_host_public_key: identity.ssh_host_public_key,
        seed_sha256: identity.seed_sha256,
      },
      slot: { index: slot.index, runtime_host: slot.runtime_host, tap_device: slot.tap_device },
      vmm: {
        jail_id,
        name: vmms.description.name,
        version: vmms.description.version,
        uid: slot.uid,
        gid: slot.gid,
      },
      created_at: clock.now(),
    };
    await trace.step("intent", () =>
      state.commit({ put: "operation", record: operation }, { put: "machine", record }),
    );
    // Knows whether everything after it could be undone.
    undo.push("record", async (failed) => {
      if (failed.length === 0) {
        await state.commit({ drop: "machine", id }, { drop: "operation", id: operation.id });
        return;
      }
      // The intent stays: the next start, or a delete, takes up what could not be undone now.
      const error = `a failed ${plan.operation} could not be undone wholly: ${failed.join(", ")}`;
      await state.commit({ put: "machine", record: { ...record, phase: "failed", error } });
    });
    await storage.makeMachine(id);
    undo.push("files", () => storage.removeMachine(id));
    const { snapshot_id } = plan;
    const disk = await trace.step("disk", () =>
      snapshot_id === undefined
        ? storage.cloneImageDisk(plan.image, id, plan.storage_bytes)
        : storage.cloneSnapshotDisk(snapshot_id, id, plan.storage_bytes),
    );
    await trace.step("seed", async () => {
      await storage.writeSeed(id, identity.seed);
      await storage.handOver(id, slot.uid, slot.gid);
    });
    signal.throwIfAborted();

    const paths = storage.machineFiles(id);
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
            fsize_bytes: Math.max(disk.size_bytes, plan.memory_mib * MIB) + VMM_OVERHEAD_BYTES,
            no_file: 4096,
          },
          cgroup: { memory_bytes: plan.memory_mib * MIB + VMM_OVERHEAD_BYTES, cpus: plan.vcpus, pids: 128 },
        },
        signal,
      ),
    );
    undo.push("vmm", async () => {
      await vmm.kill();
      await vmm.detach();
    });
    record = {
      ...record,
      storage_bytes: disk.size_bytes,
      disk_clone: disk.clone,
      vmm: { ...vmmOf(record), process: vmm.ref.process },
    };
    await trace.step("launched", () => state.commit({ put: "machine", record }));

    await trace.step("boot", () =>
      vmm.boot(
        {
          vcpus: plan.vcpus,
          memory_mib: plan.memory_mib,
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
    const guest = { host: slot.runtime_host, ssh_host_public_key: identity.ssh_host_public_key };
    // What an acknowledged create promises must survive a loss of power; the guest takes longer to boot than this.
    await trace.step("ready", () =>
      Promise.all([waitReady(context, plan, guest, vmm, signal), storage.syncMachine(id)]),
    );

    if (plan.ready === "ssh") await vmms.noteLinuxBooted();

    // Last: until now only the daemon reached the guest, and the guest nobody.
    undo.push("egress", () => network.closeEgress(slot));
    await trace.step("egress", () => network.openEgress(slot));
    record = { ...record, phase: "running", started_at: clock.now() };
    await trace.step("done", () =>
      state.commit({ put: "machine", record }, { drop: "operation", id: operation.id }),
    );
    live.set(id, vmm);
    watchVmm(context, id, vmm);
    return record;
  });
}

function vmmOf(record: MachineRecord): NonNullable<MachineRecord["vmm"]> {
  if (record.vmm === undefined) throw new Error(`machine ${record.id} has no VMM`);
  return record.vmm;
}

/** Waits as `plan.ready` asks. Throws `guest_not_ready` with the tail of the console; the signal's reason when it is aborted. */
async function waitReady(
  { guests, storage, settings }: HostContext,
  plan: MachinePlan,
  guest: { host: string; ssh_host_public_key: string },
  vmm: Vmm,
  signal: AbortSignal,
): Promise<void> {
  const limit = AbortSignal.timeout(settings.readyTimeoutMs);
  try {
    if (plan.ready === "ssh") await guests.waitReady(guest, AbortSignal.any([signal, limit, vmm.gone]));
    else vmm.gone.throwIfAborted();
  } catch (error) {
    signal.throwIfAborted();
    const reason = vmm.gone.aborted
      ? "the guest ended before it was ready"
      : limit.aborted
        ? `the guest did not become ready within ${settings.readyTimeoutMs / 1000} s`
        : messageOf(error);
    const { console } = storage.machineFiles(plan.id);
    throw new AppError("guest_not_ready", reason, {
      details: {
        ready: plan.ready,
        last_error: messageOf(error),
        console_tail: await storage.tail(console, CONSOLE_TAIL_BYTES),
      },
      cause: error,
    });
  }
}
