import { AppError, messageOf } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import { RECEIPT_ITEMS, type ReceiptEntry } from "../contract/machine.ts";
import type { GuestAddress, NewSeed } from "../guest/types.ts";
import { seedBootArgs } from "../guest/types.ts";
import type { Manifest } from "../model/manifest.ts";
import type { HardwareRecord, MachineRecord } from "../model/records.ts";
import { GUEST_NETWORK, type Slot } from "../network/types.ts";
import type { JailFile, Vmm } from "../vmm/types.ts";
import type { HostContext } from "./context.ts";
import { addressOf } from "./guest-address.ts";
import type { WayUp } from "./way-up.ts";

const CONSOLE_TAIL_BYTES = 4096;
const CONSOLE_PATH = "/console.log";
export const LOG_PATH = "/vmm.log";
export const METRICS_PATH = "/metrics.jsonl";

/** A guest that goes on where it stood when it was frozen, instead of booting. */
export interface Frozen {
  /** Whose memory and device state it is. */
  readonly snapshot: SnapshotId;
  readonly manifest: Manifest;
  /** What it is to become. */
  readonly seed: NewSeed;
}

/** A machine on its way up, whose disk and seed lie ready and whose intent is written down. */
export interface Rising {
  readonly machine: MachineRecord & Required<Pick<MachineRecord, "vmm">>;
  readonly slot: Slot;
  readonly hardware: HardwareRecord;
  /** What the guest's metadata service serves. */
  readonly metadata: object;
  /** What it wakes from; without it, it boots. */
  readonly frozen?: Frozen;
}

/** What lies in the jail: the machine's own files, at paths that a frozen guest knows, and what the guest begins from. */
export async function filesOf(
  { storage }: HostContext,
  { machine, frozen }: Rising,
): Promise<readonly JailFile[]> {
  const own = storage.machineFiles(machine.id);
  return [
    { source: own.disk, path: "/disk.img" },
    { source: own.seed, path: "/seed.img" },
    { source: own.console, path: CONSOLE_PATH },
    { source: own.vmmLog, path: LOG_PATH },
    { source: own.metrics, path: METRICS_PATH },
    ...(frozen === undefined ? await bootFiles(storage, machine) : await memoryFiles(storage, frozen)),
  ];
}

async function bootFiles(storage: HostContext["storage"], { image }: MachineRecord): Promise<JailFile[]> {
  const { kernel, initrd } = await storage.imageFiles(image);
  return [
    { source: kernel, path: "/kernel" },
    { source: initrd, path: "/initrd" },
  ];
}

async function memoryFiles(storage: HostContext["storage"], { snapshot }: Frozen): Promise<JailFile[]> {
  const { memory, vmstate } = await storage.memoryFiles(snapshot);
  return [
    { source: memory, path: "/memory" },
    { source: vmstate, path: "/vmstate" },
  ];
}

/** Sets the guest going: it boots, or wakes where it was frozen. */
export async function begin(rising: Rising, vmm: Vmm, { trace, signal }: WayUp): Promise<void> {
  const { frozen } = rising;
  if (frozen === undefined) await trace.step("boot", () => boot(rising, vmm, signal));
  else await trace.step("load", () => load(rising, vmm, signal));
}

async function boot(
  { machine, slot, hardware, metadata }: Rising,
  vmm: Vmm,
  signal: AbortSignal,
): Promise<void> {
  const ours = `console=ttyS0 reboot=k panic=-1 quiet 8250.nr_uarts=1 random.trust_cpu=on ${seedBootArgs("vdb", machine.identity.seed_sha256)}`;
  await vmm.boot(
    {
      vcpus: machine.vcpus,
      memory_mib: machine.memory_mib,
      kernel_path: "/kernel",
      initrd_path: "/initrd",
      boot_args: hardware.boot_args === undefined ? ours : `${ours} ${hardware.boot_args}`,
      disk_path: "/disk.img",
      seed_path: "/seed.img",
      console_path: CONSOLE_PATH,
      tap_device: slot.tap_device,
      guest_mac: GUEST_NETWORK.guest_mac,
      options: hardware,
      metadata,
    },
    signal,
  );
}

async function load({ slot, hardware, metadata }: Rising, vmm: Vmm, signal: AbortSignal): Promise<void> {
  await vmm.load(
    {
      state_path: "/vmstate",
      memory_path: "/memory",
      console_path: CONSOLE_PATH,
      tap_device: slot.tap_device,
      track_dirty_pages: hardware.track_dirty_pages,
      metadata,
    },
    signal,
  );
  await vmm.resume();
}

/**
 * Waits until the guest is what the machine's `ready` asks; one that woke is made another first, and what was done is
 * returned. Throws `guest_not_ready` with the tail of the console; `snapshot_invalid`; the signal's reason when it is
 * aborted.
 */
export async function becomeReady(
  { context, trace, signal }: WayUp,
  { machine, slot, frozen }: Rising,
  vmm: Vmm,
): Promise<readonly ReceiptEntry[] | undefined> {
  const { guests, storage, settings } = context;
  const { id, ready, identity } = machine;
  const limit = AbortSignal.timeout(settings.readyTimeoutMs);
  const either = AbortSignal.any([signal, limit, vmm.gone]);
  try {
    if (ready !== "ssh") {
      vmm.gone.throwIfAborted();
      return frozen === undefined ? undefined : notMadeUnique();
    }
    const receipt =
      frozen === undefined
        ? undefined
        : await trace.step("unique", () =>
            guests.makeUnique(frozenAddress(slot.runtime_host, frozen), frozen.seed, either),
          );
    await guests.waitReady(addressOf(slot.runtime_host, identity), either);
    return receipt;
  } catch (error) {
    signal.throwIfAborted();
    // Such as keys in the snapshot's manifest that are none: no fault of the guest's.
    if (error instanceof AppError && error.code !== "guest_not_ready") throw error;
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

/** How a guest that was just woken is reached: by what it was. */
function frozenAddress(host: string, { snapshot, manifest: { guest } }: Frozen): GuestAddress {
  if (guest === undefined)
    throw new AppError(
      "snapshot_invalid",
      `the manifest of snapshot ${snapshot} does not say who its guest was`,
    );
  const { ssh_host_public_key, login_key } = guest;
  return { host, ssh_host_public_key, login_key };
}

/** The receipt of a guest that nobody logs in to. */
function notMadeUnique(): ReceiptEntry[] {
  const how = "the machine's ready is started: the daemon does not log in to the guest";
  return RECEIPT_ITEMS.map((item) => ({ item, done: false, how }));
}
