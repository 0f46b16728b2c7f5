/**
 * QEMU's command line for a configuration. The same configuration always gives the same devices in the same
 * places, which a snapshot relies on.
 */
import type { Accelerator } from "../shared/accelerator.ts";
import type {
  Balloon,
  Drive,
  Entropy,
  MachineConfig,
  NetworkInterface,
  RateLimiterConfig,
} from "./bodies.ts";

/** File descriptors that QEMU inherits: its monitor, and the devices of a snapshot. The console is its standard I/O. */
export const QMP_FD = 3;
export const DEVICES_FD = 4;

/** QEMU's cache of translated code, in MiB, which counts against the VMM's memory. */
const TCG_CACHE_MIB = 64;

export interface Machine {
  readonly id: string;
  readonly accelerator: Accelerator;
  readonly config: MachineConfig;
  readonly balloon: Balloon | undefined;
  readonly drives: readonly Drive[];
  readonly networkInterfaces: readonly NetworkInterface[];
  readonly entropy: Entropy | undefined;
  readonly boot: Boot;
}

export type Boot =
  | {
      readonly from: "kernel";
      readonly kernel: string;
      readonly initrd: string | null;
      readonly commandLine: string;
    }
  | { readonly from: "snapshot" };

/** The arguments after the program's name. */
export function qemuArguments(machine: Machine): readonly string[] {
  const { config, accelerator } = machine;
  // With a thread for each processor QEMU translates code that another processor is just patching, and keeps what it
  // read: a guest of several that boots or loads drivers then hangs, once in a while. In turn they cannot.
  const threads = config.vcpu_count > 1 ? "single" : "multi";
  return [
    ["-name", `${machine.id},debug-threads=on`],
    memoryArguments(config),
    ["-cpu", "max"],
    // What QEMU saves of devices has none of the parts around it that a whole migration has.
    ["-global", "migration.send-configuration=off", "-global", "migration.store-global-state=off"],
    ["-accel", accelerator === "kvm" ? "kvm" : `tcg,thread=${threads},tb-size=${TCG_CACHE_MIB}`],
    ["-m", `${config.mem_size_mib}M`, "-smp", String(config.vcpu_count)],
    ["-nodefaults", "-no-user-config", "-display", "none"],
    // A reset ends the VM. A power-off does not: Firecracker has no power management, its guest just halts.
    ["-no-reboot", "-no-shutdown"],
    // The guest waits for the monitor: an end that comes before somebody listens there is never told.
    ["-S"],
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ["-chardev", `socket,id=monitor,fd=${QMP_FD}`, "-mon", "chardev=monitor,mode=control"],
    ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
    // The keyboard controller: Ctrl-Alt-Del comes in through it, and `reboot=k` goes out.
    ["-device", "i8042"],
    balloonArguments(machine.balloon),
    machine.drives.flatMap(driveArguments),
    machine.networkInterfaces.flatMap(networkArguments),
    entropyArguments(machine.entropy),
    bootArguments(machine.boot),
  ].flat();
}

/** Anonymous memory, but for a guest that asked for the pages of the host's pool. */
function memoryArguments({ huge_pages, mem_size_mib }: MachineConfig): readonly string[] {
  const machine = "microvm,acpi=on,rtc=on,suppress-vmdesc=on";
  if (huge_pages !== "2M") return ["-M", machine];
  const pool = `memory-backend-memfd,id=pool,size=${mem_size_mib}M,hugetlb=on,hugetlbsize=2M,share=off`;
  return ["-object", pool, "-M", `${machine},memory-backend=pool`];
}

function bootArguments(boot: Boot): readonly string[] {
  // Deferred: the memory has to be there before the devices, some of which look at it.
  if (boot.from === "snapshot") return ["-incoming", "defer"];
  const initrd = boot.initrd === null ? [] : ["-initrd", boot.initrd];
  return ["-kernel", boot.kernel, ...initrd, "-append", boot.commandLine];
}

/** The name of a drive in QEMU's block layer; its limits are called `<node>-limit`. */
export function driveNode(index: number): string {
  return `drive${index}`;
}

/** A file, the raw image in it, and the limits around that. The guest sees the outermost. */
function driveArguments(drive: Drive, index: number): readonly string[] {
  const node = driveNode(index);
  const common = driveOptions(drive);
  const limits = throttle(drive.rate_limiter);
  return [
    json("-object", { "qom-type": "throttle-group", id: `${node}-limit`, limits }),
    json("-blockdev", driveFile(`${node}-file`, drive.path_on_host ?? "", drive)),
    json("-blockdev", { driver: "raw", "node-name": `${node}-raw`, file: `${node}-file`, ...common }),
    json("-blockdev", {
      driver: "throttle",
      "node-name": node,
      "throttle-group": `${node}-limit`,
      file: `${node}-raw`,
      ...common,
    }),
    json("-device", { driver: "virtio-blk-device", id: `disk${index}`, drive: node }),
  ].flat();
}

/**
 * What every layer of a drive is told. Unsafe: the guest's flushes are ignored. `io_engine` says how Firecracker
 * does its I/O; QEMU's threads serve for both.
 */
export function driveOptions(drive: Drive): Readonly<Record<string, unknown>> {
  return {
    "read-only": drive.is_read_only === true,
    cache: { "no-flush": drive.cache_type === "Unsafe" },
  };
}

/** The lowest layer. Firecracker takes no locks either: who shares a disk is the client's affair. */
export function driveFile(node: string, path: string, drive: Drive): Readonly<Record<string, unknown>> {
  return { driver: "file", "node-name": node, filename: path, locking: "off", ...driveOptions(drive) };
}

/** QEMU's limits in bytes and operations a second for Firecracker's two buckets. 0 is no limit. */
export function throttle(limiter: RateLimiterConfig | null): Readonly<Record<string, number>> {
  return {
    "bps-total": rate(limiter?.bandwidth ?? null),
    "iops-total": rate(limiter?.ops ?? null),
  };
}

function rate(bucket: RateLimiterConfig["bandwidth"]): number {
  if (bucket === null || bucket.size === 0 || bucket.refill_time === 0) return 0;
  return Math.max(1, Math.round((bucket.size * 1000) / bucket.refill_time));
}

function networkArguments(nic: NetworkInterface, index: number): readonly string[] {
  const id = `tap${index}`;
  const tap = { type: "tap", id, ifname: nic.host_dev_name, script: "no", downscript: "no", vhost: false };
  const mtu = nic.mtu === null ? {} : { host_mtu: nic.mtu };
  const device = { driver: "virtio-net-device", id: `net${index}`, netdev: id, mac: nic.guest_mac, ...mtu };
  return [json("-netdev", tap), json("-device", device)].flat();
}

function entropyArguments(entropy: Entropy | undefined): readonly string[] {
  if (entropy === undefined) return [];
  const bucket = entropy.rate_limiter?.bandwidth ?? null;
  const limit = bucket === null ? {} : { "max-bytes": bucket.size, period: bucket.refill_time };
  const device = { driver: "virtio-rng-device", id: "rng", rng: "random", ...limit };
  return ["-object", "rng-builtin,id=random", ...json("-device", device)];
}

function balloonArguments(balloon: Balloon | undefined): readonly string[] {
  if (balloon === undefined) return [];
  return json("-device", {
    driver: "virtio-balloon-device",
    id: "balloon",
    "deflate-on-oom": balloon.deflate_on_oom,
    "free-page-reporting": balloon.free_page_reporting,
  });
}

function json(option: string, value: Readonly<Record<string, unknown>>): readonly string[] {
  return [option, JSON.stringify(value)];
}
