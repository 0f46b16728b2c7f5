import type { HostItem, Mended } from "../model/inventory.ts";
import type { HardwareRecord, VmmLimits } from "../model/records.ts";
import type { ProcessIdentity } from "../system/process.ts";

/** Which VMM this daemon drives, and why. */
export interface VmmDescription {
  readonly name: string;
  readonly version: string;
  readonly firecracker_path: string;
  readonly jailer_path: string;
  readonly reason: string;
}

/** A file that is put into a jail before the jailer starts, as a hard link to the daemon's own path. */
export interface JailFile {
  /** Host path on the daemon's filesystem. */
  readonly source: string;
  /** Absolute path inside the jail, one level deep: `/kernel`. */
  readonly path: string;
}

export interface LaunchSpec {
  /** Short and new for each launch; letters, digits and hyphens. */
  readonly jail_id: string;
  readonly uid: number;
  readonly gid: number;
  readonly netns_path: string;
  readonly files: readonly JailFile[];
  /** Path inside the jail of a file that was made for the VMM's own log. */
  readonly log_path: string;
  /** Path inside the jail of a file that was made for the VMM's metrics. */
  readonly metrics_path: string;
  readonly limits: VmmLimits;
  /** Give the guest a PCI bus instead of memory-mapped devices. */
  readonly pci: boolean;
}

/** What must be kept to recognise a VMM after a restart. */
export interface VmmRef {
  readonly jail_id: string;
  readonly uid: number;
  readonly gid: number;
  readonly netns_path: string;
  readonly process?: ProcessIdentity;
}

/** A VMM that a record names. */
export interface KnownVmm extends VmmRef {
  /** What its cgroups say; undefined in records of before it was kept. */
  readonly limits?: VmmLimits;
}

/** Paths are inside the jail. */
export interface GuestHardware {
  readonly vcpus: number;
  readonly memory_mib: number;
  readonly kernel_path: string;
  readonly initrd_path: string;
  readonly boot_args: string;
  readonly disk_path: string;
  readonly seed_path: string;
  readonly console_path: string;
  readonly tap_device: string;
  readonly guest_mac: string;
  readonly options: HardwareRecord;
  /** What the guest's metadata service (MMDS, version 2) serves, and only to this guest. */
  readonly metadata: object;
}

/** How a frozen guest is woken. Paths are inside the jail. The disk and the seed lie at the paths they had when it was frozen. */
export interface FrozenGuest {
  readonly state_path: string;
  readonly memory_path: string;
  /** Given anew: a snapshot does not keep it. */
  readonly console_path: string;
  readonly tap_device: string;
  readonly track_dirty_pages: boolean;
  /** Given anew, likewise. */
  readonly metadata: object;
}

/** Two files that a VMM is to write a snapshot into: host paths of files that exist and belong to its uid. */
export interface SaveTarget {
  /** diff: the memory file holds the base's memory, and only what changed since is written over it. */
  readonly kind: "full" | "diff";
  readonly state: string;
  readonly memory: string;
}

/** A live VMM. */
export interface Vmm {
  readonly ref: VmmRef & { readonly process: ProcessIdentity };
  /** Aborted when the VMM is gone, noticed by the end of an open API connection or of its process. */
  readonly gone: AbortSignal;
  /** Configures the guest and starts it. Throws `vmm_failed` with the VMM's own words, `vmm_timeout`. */
  boot(hardware: GuestHardware, signal?: AbortSignal): Promise<void>;
  /**
   * Loads the guest that was frozen, and leaves it paused. A VMM that refuses what it is given ends itself. Throws
   * `vmm_failed` with the VMM's own words, `vmm_timeout`.
   */
  load(frozen: FrozenGuest, signal?: AbortSignal): Promise<void>;
  /**
   * Writes memory and device state of the guest, which is paused. The files are lent to the jail for as long as it takes.
   * Bounded by the size of the guest's memory. Throws `vmm_failed`, `vmm_timeout`, `disk_full`.
   */
  save(target: SaveTarget, memoryMib: number): Promise<void>;
  /** Tells the VMM that the system disk's file has grown. Throws `vmm_failed`, `vmm_timeout`. */
  diskGrew(): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Presses Ctrl-Alt-Del: only a key press, the guest may not listen. */
  sendCtrlAltDel(): Promise<void>;
  /** Resolves true when the VMM is gone within `timeoutMs`, false otherwise. */
  waitGone(timeoutMs: number): Promise<boolean>;
  /** SIGKILL; resolves when the process is dead. Idempotent. */
  kill(): Promise<void>;
  /** Stops watching (a daemon that ends leaves its VMs running). */
  detach(): Promise<void>;
}

/** The door of the vmm room. */
export interface Vmms {
  /** Chooses the pair, checks it and the length of socket paths. Throws a plain Error with a sentence for the operator. */
  open(): Promise<void>;
  readonly description: VmmDescription;
  /** The format of the state files that this VMM writes and reads, as it names it (`--snapshot-version`). */
  readonly snapshotFormat: string;
  /** Of the running boot of the host, as the processes of VMMs have it. */
  readonly bootId: string;
  /** A new jail id that was never used here. */
  newJailId(): string;
  /**
   * Makes the jail, runs the jailer, recognises the process (root folder, uid, namespace), and waits until its API answers.
   * On failure everything is unmade. Throws `vmm_failed`, `vmm_timeout`, `host_full`, `disk_full`, or the signal's reason.
   */
  launch(spec: LaunchSpec, signal?: AbortSignal): Promise<Vmm>;
  /**
   * Takes over a VMM of a former run. Undefined when its process was never recorded, is no longer exactly that one, or
   * when nobody is at its API any more: then `release` is what is left to do.
   */
  adopt(ref: VmmRef): Promise<Vmm | undefined>;
  /**
   * Kills whatever runs in the jail and removes the jail and its cgroups. Idempotent; missing is fine.
   * Throws `vmm_timeout` when something does not die; the jail stays then, for another try.
   */
  release(ref: VmmRef): Promise<void>;
  /** Ids of all jails under this root: for recovery. */
  listJails(): Promise<string[]>;
  /** All jails, VMMs and cgroups under this root, or that should be there: one look at /proc for each VMM. */
  inventory(known: readonly KnownVmm[]): Promise<HostItem[]>;
  /**
   * Mends what `inventory` found to be wrong: removes jails and cgroups that no record names, with all that runs there,
   * and makes cgroups anew around VMMs that run. A VMM or a jail that is gone cannot be mended. The caller holds the
   * locks of the machines concerned, and has made sure that no record names what is to go. Never throws: each failure is told.
   */
  mend(items: readonly HostItem[], known: readonly KnownVmm[]): Promise<Mended[]>;
  /** Remembers that Linux booted under this pair on this host, so that it may be chosen unasked. Idempotent and cheap. */
  noteLinuxBooted(): Promise<void>;
}
