import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { AppError } from "../../../src/contract/errors.ts";
import type { MachineId, SnapshotId } from "../../../src/contract/ids.ts";
import type { Artifact } from "../../../src/contract/machine.ts";
import type {
  ArtifactKind,
  RemoteSnapshot,
  UploadSnapshot,
  Uploaded,
} from "../../../src/contract/snapshot.ts";
import type { Manifest, ManifestDraft } from "../../../src/model/manifest.ts";
import type { FileRecord, ImageRef } from "../../../src/model/records.ts";
import type {
  CloneMode,
  FinishedSnapshot,
  MachineFiles,
  MadeDisk,
  ReadableFile,
  Storage,
  StorageUsage,
} from "../../../src/storage/types.ts";

const MIB = 1024 * 1024;

interface FakeMachineFolder {
  readonly disk?: number;
  /** The snapshot whose memory the next diff stands on. */
  readonly memoryBase?: SnapshotId;
}

interface FakeSnapshotFolder {
  readonly finished: boolean;
  /** Of the disk. */
  readonly size: number;
  /** Of the memory, once it is staged. */
  readonly memoryBytes?: number;
  /** The files that are there. A test damages a snapshot by taking one out. */
  readonly files?: Set<ArtifactKind>;
  /** Once it is finished. */
  readonly manifest?: Manifest;
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex");

/** Disks, memory and images that are only names here. Knows which exist. */
export class FakeStorage implements Storage {
  readonly cloneMode: CloneMode = "reflink";
  readonly machines = new Map<MachineId, FakeMachineFolder>();
  readonly snapshots = new Map<SnapshotId, FakeSnapshotFolder>();
  readonly images = new Set(["debian-slim"]);
  /** Manifests of the snapshots that can be downloaded, by id. */
  readonly remote = new Map<SnapshotId, Manifest>();
  /** Text that `tail` returns for the console and the VMM's log. */
  consoleTail = "";
  vmmLogTail = "";
  seedsWritten = 0;
  /** What `freeBytes` says and the memory of a snapshot must fit into. */
  free = 1024 * MIB;
  /** Throws this at the named call. */
  readonly failures = new Map<keyof Storage, Error>();
  /** What was called, in this order, with the ids that it was called for. */
  readonly calls: string[] = [];
  /** Awaited in `localImage`: lets a test hold a create up. */
  gate: Promise<void> = Promise.resolve();

  /** Nothing here happens before the caller has gone on to wait for it. */
  async #enter(call: keyof Storage, ...ids: readonly string[]): Promise<void> {
    await Promise.resolve();
    this.calls.push([call, ...ids].join(" "));
    const failure = this.failures.get(call);
    if (failure !== undefined) throw failure;
  }

  async open(): Promise<void> {
    await this.#enter("open");
  }

  async localImage(name: string, signal?: AbortSignal): Promise<ImageRef> {
    await this.gate;
    signal?.throwIfAborted();
    await this.#enter("localImage", name);
    if (!this.images.has(name))
      throw new AppError("image_not_found", `there is no image ${name}: make images`);
    return this.#image(`file:///images/${name}/vmlinuz`, `file:///images/${name}/rootfs.ext4`, name);
  }

  async fetchImage(artifact: Artifact): Promise<ImageRef> {
    await this.gate;
    await this.#enter("fetchImage");
    return this.#image(artifact.kernel_image_url, artifact.rootfs_url);
  }

  #image(kernel: string, rootfs: string, name?: string): ImageRef {
    return {
      ...(name === undefined ? {} : { name }),
      kernel_sha256: digest(kernel),
      initrd_sha256: digest("initrd"),
      rootfs_sha256: digest(rootfs),
      rootfs_size_bytes: 512 * MIB,
      kernel_image_url: kernel,
      rootfs_url: rootfs,
      default_user: "root",
    };
  }

  async imageFiles(): Promise<{ kernel: string; initrd: string; rootfs: string }> {
    await this.#enter("imageFiles");
    return { kernel: "/fake/kernel", initrd: "/fake/initrd", rootfs: "/fake/rootfs" };
  }

  async makeMachine(id: MachineId): Promise<void> {
    await this.#enter("makeMachine", id);
    if (this.machines.has(id)) throw new AppError("internal", `the folder of ${id} exists`);
    this.machines.set(id, {});
  }

  async cloneImageDisk(image: ImageRef, id: MachineId, sizeBytes: number | undefined): Promise<MadeDisk> {
    await this.#enter("cloneImageDisk", id);
    return this.#disk(id, image.rootfs_size_bytes, sizeBytes);
  }

  async cloneSnapshotDisk(
    snapshot: SnapshotId,
    id: MachineId,
    sizeBytes: number | undefined,
  ): Promise<MadeDisk> {
    await this.#enter("cloneSnapshotDisk", snapshot, id);
    return this.#disk(id, this.#finished(snapshot, "disk").size, sizeBytes);
  }

  #disk(id: MachineId, from: number, wanted: number | undefined): MadeDisk {
    if (wanted !== undefined && wanted < from)
      throw new AppError("disk_too_small", "smaller than what it is made from");
    const size_bytes = wanted ?? from;
    this.machines.set(id, { ...this.machines.get(id), disk: size_bytes });
    return { clone: this.cloneMode, size_bytes };
  }

  async syncMachine(id: MachineId): Promise<void> {
    await this.#enter("syncMachine", id);
  }

  async writeSeed(id: MachineId): Promise<void> {
    await this.#enter("writeSeed", id);
    this.seedsWritten += 1;
  }

  async handOver(id: MachineId): Promise<void> {
    await this.#enter("handOver", id);
  }

  async takeBack(id: MachineId): Promise<void> {
    await this.#enter("takeBack", id);
  }

  async growDisk(id: MachineId, sizeBytes: number): Promise<number> {
    await this.#enter("growDisk", id);
    const machine = this.machines.get(id);
    const size_bytes = Math.max(machine?.disk ?? 0, sizeBytes);
    this.machines.set(id, { ...machine, disk: size_bytes });
    return size_bytes;
  }

  machineFiles(id: MachineId): MachineFiles {
    return {
      disk: `/fake/${id}/disk.img`,
      seed: `/fake/${id}/seed.img`,
      console: `/fake/${id}/console.log`,
      vmmLog: `/fake/${id}/vmm.log`,
      metrics: `/fake/${id}/metrics.jsonl`,
    };
  }

  async boundLogs(id: MachineId): Promise<void> {
    await this.#enter("boundLogs", id);
  }

  async tail(path: string): Promise<string> {
    await this.#enter("tail", path);
    return path.endsWith("console.log") ? this.consoleTail : this.vmmLogTail;
  }

  async removeMachine(id: MachineId): Promise<void> {
    await this.#enter("removeMachine", id);
    this.machines.delete(id);
  }

  async stageSnapshot(machine: MachineId, id: SnapshotId): Promise<MadeDisk> {
    await this.#enter("stageSnapshot", machine, id);
    const staged = this.#staged(id, "disk");
    const size = this.machines.get(machine)?.disk ?? 0;
    this.snapshots.set(id, { ...staged, size, files: new Set([...(staged.files ?? []), "disk"]) });
    return { clone: this.cloneMode, size_bytes: size };
  }

  async stageMemory(
    machine: MachineId,
    id: SnapshotId,
    kind: "full" | "diff",
    owner: { readonly uid: number; readonly gid: number; readonly memoryBytes: number },
  ): Promise<{ state: string; memory: string }> {
    await this.#enter("stageMemory", machine, id);
    if (kind === "diff" && this.machines.get(machine)?.memoryBase === undefined)
      throw new AppError("no_memory_base", `${machine} has no memory base`);
    if (owner.memoryBytes > this.free) throw new AppError("disk_full", "no room for the memory");
    const staged = this.#staged(id, "memory");
    this.snapshots.set(id, {
      ...staged,
      memoryBytes: owner.memoryBytes,
      files: new Set([...(staged.files ?? []), "memory", "vmstate"]),
    });
    return { state: `/fake/staging/${id}/vmstate.bin`, memory: `/fake/staging/${id}/memory.img` };
  }

  #staged(id: SnapshotId, kind: ArtifactKind): FakeSnapshotFolder {
    const found = this.snapshots.get(id) ?? { finished: false, size: 0 };
    if (found.finished || found.files?.has(kind) === true)
      throw new AppError("snapshot_exists", `${id} exists`);
    return found;
  }

  async finishSnapshot(id: SnapshotId, draft: ManifestDraft): Promise<FinishedSnapshot> {
    await this.#enter("finishSnapshot", id);
    const staged = this.snapshots.get(id);
    if (staged?.finished === true) throw new AppError("snapshot_exists", `${id} exists`);
    const { size = 0, memoryBytes } = staged ?? {};
    if ((memoryBytes === undefined) !== (draft.memory_kind === "none"))
      throw new AppError(
        "internal",
        `${id} is of kind ${draft.memory_kind}, but that is not what was staged`,
      );
    return this.#finish(id, {
      ...draft,
      disk: { name: "disk.img", ...record(size, "a") },
      ...(memoryBytes === undefined
        ? {}
        : {
            memory: { name: "memory.img", ...record(memoryBytes, "c") },
            vmstate: { name: "vmstate.bin", ...record(40_000, "d") },
          }),
    });
  }

  #finish(id: SnapshotId, manifest: Manifest): FinishedSnapshot {
    const files = new Set<ArtifactKind>(["disk", "manifest"]);
    if (manifest.memory !== undefined) files.add("memory").add("vmstate");
    this.snapshots.set(id, {
      finished: true,
      size: manifest.disk.size_bytes,
      ...(manifest.memory === undefined ? {} : { memoryBytes: manifest.memory.size_bytes }),
      files,
      manifest,
    });
    return {
      disk: plain(manifest.disk),
      ...(manifest.memory === undefined ? {} : { memory: plain(manifest.memory) }),
      ...(manifest.vmstate === undefined ? {} : { vmstate: plain(manifest.vmstate) }),
      manifest: recordOf(manifest),
    };
  }

  /** A finished snapshot that has a file of this kind. */
  #finished(id: SnapshotId, kind: ArtifactKind): FakeSnapshotFolder {
    const found = this.snapshots.get(id);
    if (found?.finished !== true || found.files?.has(kind) === false)
      throw new AppError("snapshot_invalid", `the snapshot ${id} has no ${kind}`, {
        details: { artifact: kind, file: kind, expected: "a regular file", found: "nothing" },
      });
    return found;
  }

  async readManifest(id: SnapshotId): Promise<Manifest> {
    await this.#enter("readManifest", id);
    const { manifest } = this.#finished(id, "manifest");
    if (manifest === undefined) throw new AppError("snapshot_invalid", `the snapshot ${id} has no manifest`);
    return structuredClone(manifest);
  }

  async checkSnapshot(id: SnapshotId, what: "disk" | "all"): Promise<void> {
    await this.#enter("checkSnapshot", id, what);
    const { manifest } = this.#finished(id, "disk");
    this.#finished(id, "manifest");
    if (what === "disk" || manifest?.memory === undefined) return;
    this.#finished(id, "memory");
    this.#finished(id, "vmstate");
  }

  async memoryFiles(id: SnapshotId): Promise<{ memory: string; vmstate: string }> {
    await this.#enter("memoryFiles", id);
    this.#finished(id, "vmstate");
    if (this.#finished(id, "memory").manifest?.memory === undefined)
      throw new AppError("snapshot_invalid", `the snapshot ${id} has no memory`);
    return { memory: `/fake/snapshots/${id}/memory.img`, vmstate: `/fake/snapshots/${id}/vmstate.bin` };
  }

  async keepMemoryBase(machine: MachineId, id: SnapshotId): Promise<void> {
    await this.#enter("keepMemoryBase", machine, id);
    this.#finished(id, "memory");
    this.machines.set(machine, { ...this.machines.get(machine), memoryBase: id });
  }

  async dropMemoryBase(machine: MachineId): Promise<void> {
    await this.#enter("dropMemoryBase", machine);
    const found = this.machines.get(machine);
    if (found === undefined) return;
    const { memoryBase: _dropped, ...rest } = found;
    this.machines.set(machine, rest);
  }

  async openArtifact(id: SnapshotId, kind: ArtifactKind): Promise<ReadableFile> {
    await this.#enter("openArtifact", id, kind);
    const { manifest } = this.#finished(id, "manifest");
    if (manifest === undefined) throw new AppError("snapshot_invalid", `the snapshot ${id} has no manifest`);
    const file = kind === "manifest" ? recordOf(manifest) : manifest[kind];
    if (file === undefined) throw new AppError("artifact_not_found", `the snapshot ${id} has no ${kind}`);
    this.#finished(id, kind);
    return {
      size_bytes: file.size_bytes,
      sha256_hex: file.sha256_hex,
      stream: (start, end) =>
        Readable.from(kind === "manifest" ? [textOf(manifest).subarray(start, end)] : zeros(end - start)),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }

  async uploadArtifacts(
    id: SnapshotId,
    plan: UploadSnapshot,
    kindOf: (artifactId: string) => ArtifactKind | undefined,
    signal?: AbortSignal,
  ): Promise<Uploaded> {
    await this.#enter("uploadArtifacts", id);
    signal?.throwIfAborted();
    return {
      artifacts: plan.artifacts.map(({ artifact_id, parts }) => {
        const kind = kindOf(artifact_id);
        if (kind === undefined)
          throw new AppError("artifact_not_found", `the snapshot ${id} has no ${artifact_id}`);
        this.#finished(id, kind);
        return {
          artifact_id,
          completed_parts: parts.map(({ part_number, upload_url }) => ({
            part_number,
            etag: digest(upload_url),
          })),
        };
      }),
    };
  }

  async fetchSnapshot(
    remote: RemoteSnapshot,
    signal?: AbortSignal,
  ): Promise<FinishedSnapshot & { manifest_content: Manifest }> {
    const id = remote.snapshot_id as SnapshotId;
    await this.#enter("fetchSnapshot", id);
    signal?.throwIfAborted();
    if (this.snapshots.has(id)) throw new AppError("snapshot_exists", `${id} exists`);
    const manifest = this.remote.get(id);
    if (manifest === undefined)
      throw new AppError("snapshot_unavailable", `the snapshot ${id} could not be downloaded`);
    return { ...this.#finish(id, structuredClone(manifest)), manifest_content: structuredClone(manifest) };
  }

  async removeSnapshot(id: SnapshotId): Promise<void> {
    await this.#enter("removeSnapshot", id);
    this.snapshots.delete(id);
  }

  async list(): Promise<{ machines: MachineId[]; snapshots: SnapshotId[] }> {
    await this.#enter("list");
    return { machines: [...this.machines.keys()], snapshots: [...this.snapshots.keys()] };
  }

  async freeBytes(): Promise<number> {
    await this.#enter("freeBytes");
    return this.free;
  }

  async usage(): Promise<StorageUsage> {
    await this.#enter("usage");
    return {
      total_bytes: 2048 * MIB,
      free_bytes: this.free,
      images: { files: 3, apparent_bytes: 600 * MIB, used_bytes: 200 * MIB },
      machines: [...this.machines].map(([id, { disk = 0 }]) => ({
        id,
        apparent_bytes: disk,
        used_bytes: MIB,
      })),
      snapshots: [...this.snapshots].map(([id, { size, memoryBytes = 0 }]) => ({
        id,
        apparent_bytes: size + memoryBytes,
        used_bytes: MIB,
      })),
    };
  }
}

function record(size_bytes: number, digit: string): FileRecord {
  return { size_bytes, sha256_hex: digit.repeat(64) };
}

function plain({ size_bytes, sha256_hex }: FileRecord): FileRecord {
  return { size_bytes, sha256_hex };
}

function textOf(manifest: Manifest): Buffer {
  return Buffer.from(JSON.stringify(manifest));
}

function recordOf(manifest: Manifest): FileRecord {
  const text = textOf(manifest);
  return { size_bytes: text.length, sha256_hex: digest(text.toString()) };
}

/** What a disk of the fake holds. */
function* zeros(bytes: number): Generator<Buffer> {
  for (let left = bytes; left > 0; left -= MIB) yield Buffer.alloc(Math.min(left, MIB));
}
