import { readdir, statfs } from "node:fs/promises";
import { AppError } from "../contract/errors.ts";
import { type MachineId, type SnapshotId, isId, machineId, snapshotId } from "../contract/ids.ts";
import type { Artifact } from "../contract/machine.ts";
import type { ArtifactKind, RemoteSnapshot, UploadSnapshot, Uploaded } from "../contract/snapshot.ts";
import type { Manifest, ManifestDraft } from "../model/manifest.ts";
import type { ImageRef } from "../model/records.ts";
import type { HostItem, Mended, Quiet } from "../model/inventory.ts";
import type { Log } from "../system/log.ts";
import { inventoryOf, mendFiles } from "./audit.ts";
import { type ArtifactSettings, Artifacts } from "./artifacts.ts";
import { Cloner, type CloneSetting } from "./clone.ts";
import { DigestStore } from "./digest-store.ts";
import { storageError } from "./errors.ts";
import { fetchImage } from "./fetch-image.ts";
import { fetchSnapshot } from "./fetch-snapshot.ts";
import { prepareFilesystem } from "./filesystem.ts";
import { Initrds } from "./initrd.ts";
import { Layout } from "./layout.ts";
import { LocalImages } from "./local-image.ts";
import { boundLog } from "./log-bound.ts";
import { MachineFolders } from "./machine-folders.ts";
import { openSealed } from "./readable-file.ts";
import { SharedWork } from "./shared-work.ts";
import { SealedSnapshots } from "./sealed-snapshots.ts";
import { SnapshotStaging, type VmmOwner } from "./snapshot-staging.ts";
import { tailOf } from "./tail.ts";
import type {
  CloneMode,
  FinishedSnapshot,
  KnownFiles,
  MachineFiles,
  MadeDisk,
  ReadableFile,
  Storage,
  StorageUsage,
} from "./types.ts";
import { type UploadSource, upload } from "./upload.ts";
import { measure } from "./usage.ts";

export interface StorageOptions {
  /** The daemon's root. */
  readonly rootDir: string;
  /** Where images are built or put. */
  readonly imageDir: string;
  /** Folders from which file URLs are taken. */
  readonly fileUrlDirs: readonly string[];
  readonly cloneMode: CloneSetting;
  readonly log: Log;
  /** Limits of fetching; the largest file is 64 GiB and the longest time an hour by default. */
  readonly artifacts?: Partial<Omit<ArtifactSettings, "fileUrlDirs">>;
}

const FETCH_LIMITS = { maxBytes: 64 * 1024 ** 3, timeoutMs: 60 * 60_000 };

/** The storage room. Nothing is touched before `open`. */
export function createStorage(options: StorageOptions): Storage {
  return new StorageRoom(options);
}

/** What depends on how files are cloned here, which `open` finds out. */
interface Opened {
  readonly cloner: Cloner;
  readonly store: DigestStore;
  readonly initrds: Initrds;
  readonly images: LocalImages;
  readonly artifacts: Artifacts;
  readonly staging: SnapshotStaging;
}

class StorageRoom implements Storage {
  readonly #options: StorageOptions;
  readonly #layout: Layout;
  readonly #machines: MachineFolders;
  readonly #snapshots: SealedSnapshots;
  readonly #fetchSettings: ArtifactSettings;
  readonly #usage = new SharedWork<StorageUsage>();
  #parts: Opened | undefined;

  constructor(options: StorageOptions) {
    this.#options = options;
    this.#layout = new Layout(options.rootDir);
    this.#machines = new MachineFolders(this.#layout);
    this.#snapshots = new SealedSnapshots(this.#layout);
    const { artifacts, fileUrlDirs } = options;
    this.#fetchSettings = { ...FETCH_LIMITS, ...artifacts, fileUrlDirs };
  }

  async open(): Promise<void> {
    const { rootDir, imageDir, cloneMode: setting, log } = this.#options;
    const found = await prepareFilesystem(this.#layout);
    if (setting === "reflink" && found === "copy") {
      throw new Error(
        `The filesystem of ${rootDir} cannot clone files by reference (XFS and Btrfs can), and ` +
          "FIRECRACKER_HOST_DISK_CLONE_MODE=reflink forbids to copy; set it to auto, or use another filesystem.",
      );
    }
    if (setting === "auto" && found === "copy") {
      log.warn(
        { root: rootDir },
        "the filesystem cannot clone files by reference: disks are copied, which takes longer and more room",
      );
    }
    const cloner = new Cloner(setting === "copy" ? "copy" : found, setting);
    const store = new DigestStore(this.#layout, cloner);
    const initrds = new Initrds(store, imageDir);
    this.#parts = {
      cloner,
      store,
      initrds,
      images: new LocalImages(imageDir, store, initrds),
      artifacts: new Artifacts(store, this.#fetchSettings),
      staging: new SnapshotStaging(this.#layout, cloner),
    };
  }

  get #opened(): Opened {
    if (this.#parts === undefined)
      throw new AppError("internal", "The storage was used before it was opened.");
    return this.#parts;
  }

  get cloneMode(): CloneMode {
    return this.#opened.cloner.mode;
  }

  async localImage(name: string, signal?: AbortSignal): Promise<ImageRef> {
    try {
      return await this.#opened.images.get(name, signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw storageError(error, `Importing the image ${name}`);
    }
  }

  fetchImage(artifact: Artifact, signal?: AbortSignal): Promise<ImageRef> {
    const { artifacts, images, initrds } = this.#opened;
    return fetchImage({ artifacts, images, initrds, imageDir: this.#options.imageDir }, artifact, signal);
  }

  async imageFiles(image: ImageRef): Promise<{ kernel: string; initrd: string; rootfs: string }> {
    const { store } = this.#opened;
    const path = async (what: string, sha256: string): Promise<string> => {
      if ((await store.sizeOf(sha256)) !== undefined) return store.path(sha256);
      throw new AppError("image_invalid", `The store no longer has the ${what} ${sha256} of this image.`);
    };
    const [kernel, initrd, rootfs] = await Promise.all([
      path("kernel", image.kernel_sha256),
      path("initrd", image.initrd_sha256),
      path("root disk", image.rootfs_sha256),
    ]);
    return { kernel, initrd, rootfs };
  }

  makeMachine(id: MachineId): Promise<void> {
    return this.#machines.make(id);
  }

  async cloneImageDisk(image: ImageRef, id: MachineId, sizeBytes: number | undefined): Promise<MadeDisk> {
    const { rootfs } = await this.imageFiles(image);
    return this.#opened.cloner.cloneDisk(rootfs, this.#layout.machine(id).disk, sizeBytes);
  }

  async cloneSnapshotDisk(
    snapshot: SnapshotId,
    id: MachineId,
    sizeBytes: number | undefined,
  ): Promise<MadeDisk> {
    const disk = await this.#snapshots.disk(snapshot);
    return this.#opened.cloner.cloneDisk(disk, this.#layout.machine(id).disk, sizeBytes);
  }

  syncMachine(id: MachineId): Promise<void> {
    return this.#machines.sync(id);
  }

  writeSeed(id: MachineId, seed: Uint8Array): Promise<void> {
    return this.#machines.writeSeed(id, seed);
  }

  readSeed(id: MachineId): Promise<Uint8Array> {
    return this.#machines.readSeed(id);
  }

  handOver(id: MachineId, uid: number, gid: number): Promise<void> {
    return this.#machines.handOver(id, uid, gid);
  }

  takeBack(id: MachineId): Promise<void> {
    return this.#machines.takeBack(id);
  }

  machineFiles(id: MachineId): MachineFiles {
    const { disk, seed, console: consoleLog, vmmLog, metrics } = this.#layout.machine(id);
    return { disk, seed, console: consoleLog, vmmLog, metrics };
  }

  async boundLogs(id: MachineId): Promise<void> {
    const { console: consoleLog, vmmLog, metrics } = this.#layout.machine(id);
    for (const path of [consoleLog, vmmLog, metrics]) await boundLog(path);
  }

  tail(path: string, maxBytes: number): Promise<string> {
    return tailOf(path, maxBytes);
  }

  growDisk(id: MachineId, sizeBytes: number): Promise<number> {
    return this.#machines.grow(id, sizeBytes);
  }

  removeMachine(id: MachineId): Promise<void> {
    return this.#machines.remove(id);
  }

  stageSnapshot(machine: MachineId, id: SnapshotId): Promise<MadeDisk> {
    return this.#opened.staging.stageDisk(machine, id);
  }

  stageMemory(
    machine: MachineId,
    id: SnapshotId,
    kind: "full" | "diff",
    owner: VmmOwner,
  ): Promise<{ state: string; memory: string }> {
    return this.#opened.staging.stageMemory(machine, id, kind, owner);
  }

  finishSnapshot(id: SnapshotId, manifest: ManifestDraft): Promise<FinishedSnapshot> {
    return this.#opened.staging.finish(id, manifest);
  }

  readManifest(id: SnapshotId): Promise<Manifest> {
    return this.#snapshots.manifest(id);
  }

  checkSnapshot(id: SnapshotId, what: "disk" | "all"): Promise<void> {
    return this.#snapshots.check(id, what);
  }

  memoryFiles(id: SnapshotId): Promise<{ memory: string; vmstate: string }> {
    return this.#snapshots.memoryFiles(id);
  }

  async keepMemoryBase(machine: MachineId, id: SnapshotId): Promise<void> {
    const { memory } = await this.#snapshots.memoryFiles(id);
    return this.#machines.keepMemoryBase(machine, memory);
  }

  dropMemoryBase(machine: MachineId): Promise<void> {
    return this.#machines.dropMemoryBase(machine);
  }

  openArtifact(id: SnapshotId, kind: ArtifactKind): Promise<ReadableFile> {
    return openSealed(this.#layout, this.#snapshots, id, kind);
  }

  uploadArtifacts(
    id: SnapshotId,
    plan: UploadSnapshot,
    kindOf: (artifactId: string) => ArtifactKind | undefined,
    signal?: AbortSignal,
  ): Promise<Uploaded> {
    const source: UploadSource = {
      check: (what) => this.#snapshots.check(id, what),
      open: (kind) => this.openArtifact(id, kind),
    };
    const { uploadStallMs: stallMs, backoffMs } = this.#options.artifacts ?? {};
    return upload(source, plan, kindOf, { stallMs, backoffMs }, signal);
  }

  fetchSnapshot(
    remote: RemoteSnapshot,
    signal?: AbortSignal,
  ): Promise<FinishedSnapshot & { manifest_content: Manifest }> {
    const { store, cloner } = this.#opened;
    return fetchSnapshot(
      { layout: this.#layout, store, cloner, settings: this.#fetchSettings },
      remote,
      signal,
    );
  }

  async removeSnapshot(id: SnapshotId): Promise<void> {
    await this.#opened.staging.remove(id);
    await this.#snapshots.remove(id);
  }

  inventory(known: KnownFiles, quiet: Quiet): Promise<HostItem[]> {
    return inventoryOf(this.#layout, known, quiet);
  }

  mend(items: readonly HostItem[], known: KnownFiles, quiet: Quiet): Promise<Mended[]> {
    return mendFiles(this.#layout, items, known, quiet);
  }

  async list(): Promise<{ machines: MachineId[]; snapshots: SnapshotId[] }> {
    const [machines, snapshots] = await Promise.all([
      readdir(this.#layout.machines),
      readdir(this.#layout.snapshots),
    ]);
    return {
      machines: machines.filter(isId).map(machineId),
      snapshots: snapshots.filter(isId).map(snapshotId),
    };
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#layout.root);
    return bavail * bsize;
  }

  usage(): Promise<StorageUsage> {
    return this.#usage.run("all", () => measure(this.#layout));
  }
}
