/** What a VM is made of, collected before it boots and told afterwards. Each setter refuses what Firecracker refuses. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { randomBytes } from "node:crypto";

import { osErrorText, OsError } from "../shared/os-error.ts";
import type {
  Balloon,
  BootSource,
  Drive,
  Entropy,
  MachineConfig,
  MachineConfigUpdate,
  MmdsConfig,
  NetworkInterface,
  NetworkInterfaceUpdate,
  Serial,
} from "./bodies.ts";
import { Fault, noDevice } from "./fault.ts";
import { commandLineFault } from "./kernel-arguments.ts";

const EPERM = 1;
const EISDIR = 21;
const MAX_VCPUS = 32;
const MAX_INTERFACE_NAME = 15;
const MIN_MTU = 68;
const TAP_FAILED = "Network config error: Could not create the network device";
const DEFAULT_MMDS_ADDRESS = "169.254.169.254";

export class Resources {
  machine: MachineConfig = {
    vcpu_count: 1,
    mem_size_mib: 128,
    smt: false,
    cpu_template: null,
    track_dirty_pages: false,
    huge_pages: "None",
  };
  bootSource: BootSource | undefined;
  drives: readonly Drive[] = [];
  networkInterfaces: readonly NetworkInterface[] = [];
  entropy: Entropy | undefined;
  balloon: Balloon | undefined;
  mmdsConfig: MmdsConfig | undefined;
  serial: Serial = { serial_out_path: null, rate_limiter: null };
  /** Addresses for interfaces that were given none: a guest would make one up, QEMU's would all be the same. */
  readonly #madeUpMacs = new Map<string, string>();

  updateMachine(update: MachineConfigUpdate): void {
    const vcpus = update.vcpu_count ?? this.machine.vcpu_count;
    const smt = update.smt ?? this.machine.smt;
    if (vcpus === 0 || vcpus > MAX_VCPUS || (smt && vcpus > 1 && vcpus % 2 === 1)) {
      throw new Fault(
        `Machine config error: The number of vCPUs must be greater than 0, less than ${MAX_VCPUS} and must be 1 or an even number if SMT is enabled.`,
      );
    }
    const memory = update.mem_size_mib ?? this.machine.mem_size_mib;
    const pages = update.huge_pages ?? this.machine.huge_pages;
    if (memory === 0 || (pages !== "None" && memory % 2 !== 0)) {
      throw new Fault(
        "Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.",
      );
    }
    if (this.balloon !== undefined && memory < this.balloon.amount_mib) {
      throw new Fault(
        "Machine config error: The memory size (MiB) is smaller than the previously set balloon device target size.",
      );
    }
    const template = update.cpu_template ?? this.machine.cpu_template;
    this.machine = {
      vcpu_count: vcpus,
      mem_size_mib: memory,
      smt,
      cpu_template: template === "None" ? null : template,
      track_dirty_pages: update.track_dirty_pages ?? this.machine.track_dirty_pages,
      huge_pages: pages,
    };
  }

  setBootSource(config: BootSource): void {
    tryOpen(config.kernel_image_path, constants.O_RDONLY, (text) => {
      return `Boot source error: The kernel file cannot be opened: ${text}`;
    });
    if (config.initrd_path !== null) {
      tryOpen(config.initrd_path, constants.O_RDONLY, (text) => {
        return `Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. ${text}`;
      });
    }
    const fault = commandLineFault(config.boot_args ?? "");
    if (fault !== undefined)
      throw new Fault(`Boot source error: The kernel command line is invalid: ${fault}`);
    this.bootSource = config;
  }

  /** Adds a drive, or replaces the one with its id. The root drive always comes first: it is the guest's vda. */
  insertDrive(config: Drive): void {
    const at = this.drives.findIndex((drive) => drive.drive_id === config.drive_id);
    if (config.is_root_device && this.drives[0]?.is_root_device === true && at !== 0) {
      throw new Fault("Drive config error: A root block device already exists!");
    }
    const path = config.path_on_host;
    if (path === null || config.socket !== null) {
      // A vhost-user drive is all that the two could mean together, and QEMU has no such thing to offer here.
      throw new Fault("Drive config error: Unable to create the virtio block device: Invalid block config.");
    }
    checkDriveFile(path, config.is_read_only === true, (text) => {
      return `Drive config error: Unable to create the virtio block device: Virtio backend error: ${text}`;
    });
    const full: Drive = {
      ...config,
      is_read_only: config.is_read_only ?? false,
      io_engine: config.io_engine ?? "Sync",
      rate_limiter: emptyToNull(config.rate_limiter),
    };
    const drives = [...this.drives];
    if (at >= 0) {
      drives[at] = full;
      const [first] = drives;
      if (at !== 0 && full.is_root_device && first !== undefined) {
        drives[0] = full;
        drives[at] = first;
      }
    } else if (full.is_root_device) {
      drives.unshift(full);
    } else {
      drives.push(full);
    }
    this.drives = drives;
  }

  insertNetworkInterface(config: NetworkInterface): void {
    const others = this.networkInterfaces.filter((nic) => nic.iface_id !== config.iface_id);
    if (config.guest_mac !== null && others.some((nic) => nic.guest_mac === config.guest_mac)) {
      throw new Fault(`Network config error: The MAC address is already in use: ${config.guest_mac}`);
    }
    checkTap(config.host_dev_name);
    if (config.mtu !== null && config.mtu < MIN_MTU) {
      throw new Fault(
        `Network config error: Could not create the network device: MTU ${config.mtu} is out of range [68, 65535]`,
      );
    }
    this.networkInterfaces = [
      ...others,
      {
        ...config,
        rx_rate_limiter: emptyToNull(config.rx_rate_limiter),
        tx_rate_limiter: emptyToNull(config.tx_rate_limiter),
      },
    ];
  }

  /** New limits for an interface of a VM that runs: taken and told, but not enforced, since QEMU's tap has none. */
  updateNetworkInterface(update: NetworkInterfaceUpdate): void {
    const index = this.networkInterfaces.findIndex((nic) => nic.iface_id === update.iface_id);
    const nic = this.networkInterfaces[index];
    if (nic === undefined) throw noDevice("Network config error: Unable to update the net device");
    this.networkInterfaces = this.networkInterfaces.with(index, {
      ...nic,
      rx_rate_limiter: mergeLimiter(nic.rx_rate_limiter, update.rx_rate_limiter),
      tx_rate_limiter: mergeLimiter(nic.tx_rate_limiter, update.tx_rate_limiter),
    });
  }

  setBalloon(config: Balloon): void {
    if (config.amount_mib > this.machine.mem_size_mib) {
      throw new Fault("Balloon config error: Amount of pages requested is too large.");
    }
    this.balloon = config;
  }

  setMmdsConfig(config: MmdsConfig): void {
    const address = config.ipv4_address;
    if (address !== null && !/^169\.254\.(?!0\.|255\.)/.test(address)) {
      throw new Fault("MMMDS config error: The MMDS IPv4 address is not link local.");
    }
    if (config.network_interfaces.length === 0) {
      throw new Fault(
        "MMMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty.",
      );
    }
    const known = new Set(this.networkInterfaces.map((nic) => nic.iface_id));
    if (!config.network_interfaces.every((id) => known.has(id))) {
      throw new Fault(
        "MMMDS config error: The list of network interface IDs provided contains at least one ID that does not correspond to any existing network interface.",
      );
    }
    this.mmdsConfig = { ...config, ipv4_address: address ?? DEFAULT_MMDS_ADDRESS };
  }

  /** After a load: the addresses that the guest has, in the order of its interfaces. */
  setMadeUpMacs(macs: readonly string[]): void {
    for (const [index, nic] of this.networkInterfaces.entries()) {
      const mac = macs[index];
      if (mac !== undefined) this.#madeUpMacs.set(nic.iface_id, mac);
    }
  }

  /** The interfaces with an address each. */
  addressedInterfaces(): readonly NetworkInterface[] {
    return this.networkInterfaces.map((nic) => {
      const made = this.#madeUpMacs.get(nic.iface_id) ?? randomMac();
      this.#madeUpMacs.set(nic.iface_id, made);
      return { ...nic, guest_mac: nic.guest_mac ?? made };
    });
  }
}

/** Opens and closes a file, as whoever will use it would. Throws Fault with `describe`'s words. */
function tryOpen(path: string, flags: number, describe: (text: string) => string): void {
  try {
    closeSync(openSync(path, flags));
  } catch (cause) {
    throw new Fault(describe(osErrorText(cause)), { cause });
  }
}

/** Checks that a drive's file can be opened as the drive needs it. Throws Fault with `describe`'s words. */
export function checkDriveFile(path: string, readOnly: boolean, describe: (text: string) => string): void {
  try {
    const fd = openSync(path, readOnly ? constants.O_RDONLY : constants.O_RDWR);
    try {
      if (fstatSync(fd).isDirectory()) throw new OsError(EISDIR);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new Fault(describe(`Error manipulating the backing file: ${osErrorText(cause)} ${path}`), {
      cause,
    });
  }
}

/**
 * Firecracker opens the tap at once. QEMU will do so when it starts; what can be told before is whether the name
 * is one, whether the device node opens, and whether the interface is there (which only root could make).
 */
export function checkTap(name: string, failed = TAP_FAILED): void {
  const refuse = (text: string): Fault => new Fault(`${failed}: Open tap device failed: ${text}`);
  try {
    closeSync(openSync("/dev/net/tun", constants.O_RDWR | constants.O_NONBLOCK));
  } catch (cause) {
    throw refuse(`Couldn't open /dev/net/tun: ${osErrorText(cause)}`);
  }
  if (Buffer.byteLength(name) > MAX_INTERFACE_NAME) throw refuse("Invalid interface name");
  const present = readFileSync("/proc/self/net/dev", "utf8")
    .split("\n")
    .some((line) => line.trimStart().startsWith(`${name}:`));
  if (!present && process.getuid?.() !== 0) {
    throw refuse(
      `Error while creating ifreq structure: ${osErrorText(new OsError(EPERM))}. Invalid TUN/TAP Backend provided by ${name}. Check our documentation on setting up the network devices.`,
    );
  }
}

/** A bucket that an update does not name stays as it was. */
export function mergeLimiter(
  old: Drive["rate_limiter"],
  update: Drive["rate_limiter"],
): Drive["rate_limiter"] {
  if (update === null) return old;
  return {
    bandwidth: update.bandwidth ?? old?.bandwidth ?? null,
    ops: update.ops ?? old?.ops ?? null,
  };
}

/** A limiter without buckets is told as none. */
function emptyToNull<T extends Drive["rate_limiter"]>(limiter: T): T | null {
  return limiter === null || (limiter.bandwidth === null && limiter.ops === null) ? null : limiter;
}

/** A locally administered unicast address. */
function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
