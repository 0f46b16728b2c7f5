import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { Artifact } from "../contract/machine.ts";
import type { ImageRef } from "../model/records.ts";

export type CloneMode = "reflink" | "copy";

/** A disk that was made: which way, and its size in bytes. */
export interface MadeDisk {
  readonly clone: CloneMode;
  readonly size_bytes: number;
}

/** A file of a snapshot, as clients are told of it. */
interface SnapshotFile {
  readonly size_bytes: number;
  readonly sha256_hex: string;
}

/** What files take up: their length, and the blocks they refer to, which clones by reference share. */
export interface Usage {
  readonly apparent_bytes: number;
  readonly used_bytes: number;
}

export interface StorageUsage {
  readonly total_bytes: number;
  readonly free_bytes: number;
  readonly images: Usage & { readonly files: number };
  /** The disk of each machine that has one, by id. */
  readonly machines: readonly (Usage & { readonly id: MachineId })[];
  /** All files of each finished snapshot, by id. */
  readonly snapshots: readonly (Usage & { readonly id: SnapshotId })[];
}

export interface FinishedSnapshot {
  readonly disk: SnapshotFile;
  readonly manifest: SnapshotFile;
}

/** The door of the storage room. All paths are under the daemon's root, in folders that only root enters. */
export interface Storage {
  /**
   * Makes the folders, checks the filesystem (one filesystem, not nodev, not noexec), finds out whether it clones by
   * reference, removes half-made files of a former run. Throws a plain Error with a sentence for the operator.
   * Comes before every other call.
   */
  open(): Promise<void>;
  /** How disks are cloned here. */
  readonly cloneMode: CloneMode;

  /** The local image `name`, imported into the store once by digest. Throws `image_not_found`, `image_invalid`, `disk_full`. */
  localImage(name: string, signal?: AbortSignal): Promise<ImageRef>;
  /** The image of these URLs: fetched once, resumed, checked, kept under its digest. Throws `artifact_refused`, `artifact_unavailable`, `image_invalid`, `disk_full`. */
  fetchImage(artifact: Artifact, signal?: AbortSignal): Promise<ImageRef>;
  /** Root-owned 0444 files of the store, to be hard-linked into a jail. Throws `image_invalid` when one is missing. */
  imageFiles(image: ImageRef): Promise<{ kernel: string; initrd: string; rootfs: string }>;

  /** Makes the machine's folder. Throws `internal` when it exists. Its name is durable after `syncMachine`. */
  makeMachine(id: MachineId): Promise<void>;
  /** Clones the image's root disk for the machine and makes it `sizeBytes` long (at least the image's; `disk_too_small`). */
  cloneImageDisk(image: ImageRef, id: MachineId, sizeBytes: number | undefined): Promise<MadeDisk>;
  /** Clones a snapshot's disk for the machine, likewise. Throws `snapshot_invalid` when it is missing. */
  cloneSnapshotDisk(snapshot: SnapshotId, id: MachineId, sizeBytes: number | undefined): Promise<MadeDisk>;
  /**
   * Makes the machine's disk, seed and folder durable: what a create promises must outlive a loss of power. It may run
   * beside the boot, since nothing else waits for the disk; wait for it before the machine is told to be there.
   */
  syncMachine(id: MachineId): Promise<void>;
  /** Writes the machine's seed anew (root-owned, 0444). */
  writeSeed(id: MachineId, seed: Uint8Array): Promise<void>;
  /** Makes the files that the VMM will write (console, VMM log), empty, owned by `uid`, and gives the disk to `uid`. */
  handOver(id: MachineId, uid: number, gid: number): Promise<void>;
  /** Takes the disk back: owned by root, mode 0600. */
  takeBack(id: MachineId): Promise<void>;
  /**
   * Makes the disk of a machine that stands still at least `sizeBytes` long, durably; it never becomes shorter.
   * Returns its length in bytes, a multiple of 4096. Throws `disk_full`.
   */
  growDisk(id: MachineId, sizeBytes: number): Promise<number>;
  /** Host paths of the machine's files. */
  machineFiles(id: MachineId): { disk: string; seed: string; console: string; vmmLog: string };
  /** The last `maxBytes` of a file that the VMM wrote, control characters made harmless. Empty when missing. */
  tail(path: string, maxBytes: number): Promise<string>;
  /** Removes the machine's folder, if it is there. After a loss of power it may be back: `list` shows it then. */
  removeMachine(id: MachineId): Promise<void>;

  /**
   * Clones the machine's disk, which stands still, into a staging folder of the snapshot. The short part of a snapshot.
   * Throws `snapshot_exists`, `disk_full`.
   */
  stageSnapshot(machine: MachineId, id: SnapshotId): Promise<MadeDisk>;
  /**
   * Hashes the staged disk, writes the manifest (with the disk's size and digest added) beside it, makes all durable and
   * puts it in place in one rename.
   */
  finishSnapshot(id: SnapshotId, manifest: object): Promise<FinishedSnapshot>;
  /** Removes the snapshot, staged or finished, if it is there. */
  removeSnapshot(id: SnapshotId): Promise<void>;

  /** Machines and snapshots that have a folder: for recovery. */
  list(): Promise<{ machines: MachineId[]; snapshots: SnapshotId[] }>;
  /** Free bytes of the daemon's filesystem. */
  freeBytes(): Promise<number>;
  /** What everything here takes up. Asks the filesystem for a few facts of each file; callers at the same time share one look. */
  usage(): Promise<StorageUsage>;
}
