import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { CpuTemplate, Ended, Phase, RateLimits, Ready, ReceiptEntry } from "../contract/machine.ts";
import type { ProcessIdentity } from "../system/process.ts";

/** Files of the store that a machine boots from, each named by its SHA-256. */
export interface ImageRef {
  /** Name of the local image, where it was one. */
  readonly name?: string;
  readonly kernel_sha256: string;
  /** Digest of the initrd as it is given to the VMM (ours, with the image's modules behind it). */
  readonly initrd_sha256: string;
  readonly rootfs_sha256: string;
  readonly rootfs_size_bytes: number;
  /** Where the files came from, as the client is told. */
  readonly kernel_image_url: string;
  readonly rootfs_url: string;
  readonly default_user: string;
}

/** Who the guest is. Private keys live in the seed file, never in the state. */
export interface IdentityRecord {
  readonly hostname: string;
  readonly guest_machine_id: string;
  readonly ssh_host_public_key: string;
  /** SHA-256 of the seed file, as the kernel's command line names it. */
  readonly seed_sha256: string;
  /**
   * True when the guest lets the daemon in by a key of its own, derived from the daemon's and `guest_machine_id`; a
   * guest that was made before there were such keys takes the daemon's own.
   */
  readonly own_login_key?: boolean;
}

/** What a guest's hardware is, beside vCPUs, memory and disk. Settings of the time when it was made are among it. */
export interface HardwareRecord {
  readonly io_engine: "Sync" | "Async";
  readonly pci: boolean;
  readonly rate_limits?: RateLimits;
  readonly cpu_template?: CpuTemplate;
  readonly huge_pages: "None" | "2M";
  readonly smt: boolean;
  readonly track_dirty_pages: boolean;
  readonly boot_args?: string;
}

/** The limits that a VMM was launched under. */
export interface VmmLimits {
  readonly no_file: number;
  readonly fsize_bytes: number;
  readonly memory_bytes: number;
  readonly cpus: number;
  readonly pids: number;
}

/** The network place that a machine holds, by its number; everything else follows from it. */
export interface SlotRecord {
  readonly index: number;
  readonly runtime_host: string;
  readonly tap_device: string;
}

export interface VmmRecord {
  readonly jail_id: string;
  readonly name: string;
  readonly version: string;
  readonly uid: number;
  readonly gid: number;
  /** Undefined in records of before they were kept. */
  readonly limits?: VmmLimits;
  /** Undefined until the jailer's process was recognised. */
  readonly process?: ProcessIdentity;
}

export interface MachineRecord {
  readonly id: MachineId;
  readonly phase: Phase;
  readonly error?: string;
  /** SHA-256 of the request after defaults, without tokens and download URLs: the same id with the same digest is the same request. */
  readonly request_sha256: string;
  readonly image: ImageRef;
  readonly snapshot_id?: SnapshotId;
  readonly vcpus: number;
  readonly memory_mib: number;
  readonly storage_bytes: number;
  readonly ready: Ready;
  readonly disk_clone: "reflink" | "copy";
  /** Undefined in records of before it was kept: then the defaults of the settings. */
  readonly hardware?: HardwareRecord;
  readonly identity: IdentityRecord;
  /** Of a machine that was woken from a memory snapshot: what was made its own. */
  readonly receipt?: readonly ReceiptEntry[];
  /** True when the machine's folder holds the memory that its next diff stands on. Never while it is stopped. */
  readonly has_memory_base?: boolean;
  readonly slot?: SlotRecord;
  readonly vmm?: VmmRecord;
  readonly created_at: string;
  readonly started_at?: string;
  readonly stopped_at?: string;
  /** True when the guest shut itself down at the last stop: its disk is whole. */
  readonly stopped_cleanly?: boolean;
  /** True while the guest of a running machine stands still because a client asked for it. */
  readonly paused?: boolean;
  /** How it ended when nobody stopped it, until it runs again. */
  readonly ended?: Ended;
  /** When it is started again after it ended by itself; undefined: never. */
  readonly restart?: "always" | "on-failure";
  /** How often it was, since it last ran for long, and when it is the next time. */
  readonly restarts?: { readonly count: number; readonly next_at?: string };
  /** Index of the slot that a stopped machine held last: a start asks for it again. */
  readonly last_slot?: number;
}

/** What a stopped machine shall have from its next start on. */
export interface NewSize {
  readonly memory_mib?: number;
  readonly vcpus?: number;
  readonly storage_bytes?: number;
}

/** A file that nobody writes any more. */
export interface FileRecord {
  readonly size_bytes: number;
  readonly sha256_hex: string;
}

export interface SnapshotRecord {
  readonly id: SnapshotId;
  readonly machine_id: MachineId;
  readonly source_runtime_host?: string;
  readonly source_tap_device?: string;
  readonly image: ImageRef;
  readonly vcpus: number;
  readonly memory_mib: number;
  readonly consistency: "synced" | "crash";
  readonly paused_ms: number;
  readonly disk_clone: "reflink" | "copy";
  /** Undefined in records of before memory could be kept: none. */
  readonly memory_kind?: "none" | "full" | "diff";
  readonly disk: FileRecord;
  /** The guest's memory and the state of its devices; both or neither. */
  readonly memory?: FileRecord;
  readonly vmstate?: FileRecord;
  readonly manifest: FileRecord;
  readonly created_at: string;
}

/** An intent, written down before its first side effect, so that a restart can finish or undo it. */
export interface OperationRecord {
  readonly id: string;
  readonly kind:
    | "create"
    | "restore"
    | "start"
    | "stop"
    | "pause"
    | "resume"
    | "resize"
    | "delete"
    | "snapshot"
    | "fork"
    | "fetch-snapshot"
    | "delete-snapshot";
  readonly machine_id?: MachineId;
  readonly snapshot_id?: SnapshotId;
  /** Of a fork: the children, which are all there in the end or none of them. */
  readonly children?: readonly MachineId[];
  /** Of a start: what was wrong with the machine before, when it was a failed one. */
  readonly error_before?: string;
  /** Of a resize: what to finish. */
  readonly new_size?: NewSize;
  readonly started_at: string;
}
