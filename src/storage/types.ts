import type { Readable } from "node:stream";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { Artifact } from "../contract/machine.ts";
import type { ArtifactKind, RemoteSnapshot, UploadSnapshot, Uploaded } from "../contract/snapshot.ts";
import type { HostItem, Mended, Quiet } from "../model/inventory.ts";
import type { Manifest, ManifestDraft } from "../model/manifest.ts";
import type { FileRecord, ImageRef } from "../model/records.ts";

export type CloneMode = "reflink" | "copy";

/** A disk that was made: which way, and its size in bytes. */
export interface MadeDisk {
  readonly clone: CloneMode;
  readonly size_bytes: number;
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
  /** Disk and memory base of each machine that has one, by id. */
  readonly machines: readonly (Usage & { readonly id: MachineId })[];
  /** All files of each finished snapshot, by id. */
  readonly snapshots: readonly (Usage & { readonly id: SnapshotId })[];
}

export interface FinishedSnapshot {
  readonly disk: FileRecord;
  readonly memory?: FileRecord;
  readonly vmstate?: FileRecord;
  readonly manifest: FileRecord;
}

/** A sealed file of a snapshot, open for reading. Disposing closes it; the snapshot may be deleted meanwhile. */
export interface ReadableFile extends AsyncDisposable {
  readonly size_bytes: number;
  readonly sha256_hex: string;
  /** The bytes from `start` up to, but not with, `end`. The stream does not close the file. */
  stream(start: number, end: number): Readable;
}

/** Host paths of a machine's files. */
export interface MachineFiles {
  readonly disk: string;
  readonly seed: string;
  readonly console: string;
  readonly vmmLog: string;
  readonly metrics: string;
}

/** What a record says of a machine's files. */
export interface KnownMachine {
  /** False while it comes up: its files may be there or not. */
  readonly whole: boolean;
  /** Whose its disk is: the VMM's while it runs, root's otherwise. */
  readonly uid: number;
}

/** The files that records tell of: machines by id, and which files each snapshot has. */
export interface KnownFiles {
  readonly machines: ReadonlyMap<string, KnownMachine>;
  readonly snapshots: ReadonlyMap<string, readonly ArtifactKind[]>;
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
  /** The machine's seed as it was written. */
  readSeed(id: MachineId): Promise<Uint8Array>;
  /** Makes the files that the VMM will write (console, VMM log, metrics), empty, owned by `uid`, and gives the disk to `uid`. */
  handOver(id: MachineId, uid: number, gid: number): Promise<void>;
  /** Takes the disk back: owned by root, mode 0600. One that is gone is no error. */
  takeBack(id: MachineId): Promise<void>;
  /**
   * Makes the disk of a machine that stands still at least `sizeBytes` long, durably; it never becomes shorter.
   * Returns its length in bytes, a multiple of 4096. Throws `disk_full`.
   */
  growDisk(id: MachineId, sizeBytes: number): Promise<number>;
  /** Host paths of the machine's files. */
  machineFiles(id: MachineId): MachineFiles;
  /**
   * Empties logs of a running machine (console, VMM log, metrics) that grew beyond their limit, on the daemon's own path and
   * without following links: the VMM goes on writing behind a hole, which takes no room. Called now and then.
   */
  boundLogs(id: MachineId): Promise<void>;
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
   * Makes two files in the snapshot's staging folder (made here where it is not there yet) for the VMM to write, owned by
   * `uid`, mode 0600: an empty state file, and a memory file that is empty (`full`) or a clone of the machine's memory
   * base (`diff`). Returns their host paths. May run before the guest stands still. Throws `disk_full` when less is free
   * than the memory may take up, `no_memory_base`.
   */
  stageMemory(
    machine: MachineId,
    id: SnapshotId,
    kind: "full" | "diff",
    owner: { readonly uid: number; readonly gid: number; readonly memoryBytes: number },
  ): Promise<{ readonly state: string; readonly memory: string }>;
  /**
   * Seals what is staged: files that a VMM wrote are copied (never used as they are: a VMM could still hold them open),
   * zeros become holes, all are root's, 0444, hashed off the event loop. Writes the manifest with sizes and digests
   * beside them, makes all durable and puts the folder in place in one rename. Throws `snapshot_exists`, `disk_full`,
   * `vmm_failed` when what the VMM wrote is not what was asked for (no regular file, another length than the memory's).
   */
  finishSnapshot(id: SnapshotId, manifest: ManifestDraft): Promise<FinishedSnapshot>;
  /** The snapshot's manifest, checked against its schema. Throws `snapshot_invalid`. */
  readManifest(id: SnapshotId): Promise<Manifest>;
  /**
   * Makes sure that the files are those of the manifest: size and digest, the digest only where the file was not found
   * right before and has not changed since (inode, size, time). `disk` alone or all. Throws `snapshot_invalid`, naming
   * the file and what is wrong with it.
   */
  checkSnapshot(id: SnapshotId, what: "disk" | "all"): Promise<void>;
  /** Host paths of a snapshot's sealed memory and state, to be hard-linked into a jail. Throws `snapshot_invalid`. */
  memoryFiles(id: SnapshotId): Promise<{ readonly memory: string; readonly vmstate: string }>;
  /** Makes the snapshot's memory the one that the machine's next diff stands on: a hard link in the machine's folder. */
  keepMemoryBase(machine: MachineId, id: SnapshotId): Promise<void>;
  /** Removes the machine's memory base, if it has one. */
  dropMemoryBase(machine: MachineId): Promise<void>;
  /** Opens one file of a finished snapshot for reading. Throws `snapshot_invalid`, `artifact_not_found` when it has none of that kind. */
  openArtifact(id: SnapshotId, kind: ArtifactKind): Promise<ReadableFile>;
  /**
   * Sends artifacts as parts of multipart uploads, each part to its own presigned URL by PUT, a few at a time, a part
   * that fails again a few times. `kindOf` says which file an artifact id means. The plan is checked first: parts cover
   * each artifact without gap or overlap, URLs are ones that this daemon talks to; files that are sent are undamaged. An
   * ETag is told as the store wrote it, quotes included, which S3's CompleteMultipartUpload takes. Throws `bad_request`,
   * `artifact_not_found`, `artifact_refused`, `snapshot_invalid`, `upload_failed`, or the signal's reason.
   */
  uploadArtifacts(
    id: SnapshotId,
    plan: UploadSnapshot,
    kindOf: (artifactId: string) => ArtifactKind | undefined,
    signal?: AbortSignal,
  ): Promise<Uploaded>;
  /**
   * Downloads a snapshot that another host made: manifest first, then the rest, into staging; each with its size and
   * SHA-256 checked, broken downloads resumed; sealed like our own and put in place in one rename. The image's kernel and
   * initrd must be in the store. Throws `bad_request` (no download_url, no digest, two of a kind, another snapshot than the
   * manifest's), `artifact_refused`, `image_invalid`, `snapshot_unavailable`, `snapshot_invalid`, `snapshot_exists`,
   * `disk_full`, or the signal's reason.
   */
  fetchSnapshot(
    remote: RemoteSnapshot,
    signal?: AbortSignal,
  ): Promise<FinishedSnapshot & { manifest_content: Manifest }>;
  /** Removes the snapshot, staged or finished, if it is there. */
  removeSnapshot(id: SnapshotId): Promise<void>;

  /** Folders and files of machines and snapshots, and what is half-made or half-removed, as they are or should be. */
  inventory(known: KnownFiles, quiet: Quiet): Promise<HostItem[]>;
  /**
   * Mends what `inventory` found to be wrong: removes what nobody owns, gives disks back to their owner. A file that is
   * gone cannot be mended. The caller holds the locks of the machines and snapshots concerned, and has made sure that no
   * record names what is to go. Never throws: each failure is told.
   */
  mend(items: readonly HostItem[], known: KnownFiles, quiet: Quiet): Promise<Mended[]>;
  /** Machines and snapshots that have a folder: for recovery. */
  list(): Promise<{ machines: MachineId[]; snapshots: SnapshotId[] }>;
  /** Free bytes of the daemon's filesystem. */
  freeBytes(): Promise<number>;
  /** What everything here takes up. Asks the filesystem for a few facts of each file; callers at the same time share one look. */
  usage(): Promise<StorageUsage>;
}
