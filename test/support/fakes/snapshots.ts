import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { AppError } from "../../../src/contract/errors.ts";
import type { MachineId, SnapshotId } from "../../../src/contract/ids.ts";
import type {
  ArtifactKind,
  RemoteSnapshot,
  UploadSnapshot,
  Uploaded,
} from "../../../src/contract/snapshot.ts";
import type { Manifest, ManifestDraft } from "../../../src/model/manifest.ts";
import type { FileRecord } from "../../../src/model/records.ts";
import type {
  CloneMode,
  FinishedSnapshot,
  MadeDisk,
  ReadableFile,
  Storage,
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

/** The part of the fake storage that keeps snapshots, and what they are made from. */
export class FakeSnapshots {
  readonly cloneMode: CloneMode = "reflink";
  readonly machines = new Map<MachineId, FakeMachineFolder>();
  readonly snapshots = new Map<SnapshotId, FakeSnapshotFolder>();
  /** Manifests of the snapshots that can be downloaded, by id. */
  readonly remote = new Map<SnapshotId, Manifest>();
  /** What `freeBytes` says and the memory of a snapshot must fit into. */
  free = 1024 * MIB;
  /** Throws this at the named call. */
  readonly failures = new Map<keyof Storage, Error>();
  /** What was called, in this order, with the ids that it was called for. */
  readonly calls: string[] = [];

  /** Nothing here happens before the caller has gone on to wait for it. */
  protected async enter(call: keyof Storage, ...ids: readonly string[]): Promise<void> {
    await Promise.resolve();
    this.calls.push([call, ...ids].join(" "));
    const failure = this.failures.get(call);
    if (failure !== undefined) throw failure;
  }

  async stageSnapshot(machine: MachineId, id: SnapshotId): Promise<MadeDisk> {
    await this.enter("stageSnapshot", machine, id);
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
    await this.enter("stageMemory", machine, id);
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
    await this.enter("finishSnapshot", id);
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
  protected finished(id: SnapshotId, kind: ArtifactKind): FakeSnapshotFolder {
    const found = this.snapshots.get(id);
    if (found?.finished !== true || found.files?.has(kind) === false)
      throw new AppError("snapshot_invalid", `the snapshot ${id} has no ${kind}`, {
        details: { artifact: kind, file: kind, expected: "a regular file", found: "nothing" },
      });
    return found;
  }

  async readManifest(id: SnapshotId): Promise<Manifest> {
    await this.enter("readManifest", id);
    const { manifest } = this.finished(id, "manifest");
    if (manifest === undefined) throw new AppError("snapshot_invalid", `the snapshot ${id} has no manifest`);
    return structuredClone(manifest);
  }

  async checkSnapshot(id: SnapshotId, what: "disk" | "all"): Promise<void> {
    await this.enter("checkSnapshot", id, what);
    const { manifest } = this.finished(id, "disk");
    this.finished(id, "manifest");
    if (what === "disk" || manifest?.memory === undefined) return;
    this.finished(id, "memory");
    this.finished(id, "vmstate");
  }

  async memoryFiles(id: SnapshotId): Promise<{ memory: string; vmstate: string }> {
    await this.enter("memoryFiles", id);
    this.finished(id, "vmstate");
    if (this.finished(id, "memory").manifest?.memory === undefined)
      throw new AppError("snapshot_invalid", `the snapshot ${id} has no memory`);
    return { memory: `/fake/snapshots/${id}/memory.img`, vmstate: `/fake/snapshots/${id}/vmstate.bin` };
  }

  async keepMemoryBase(machine: MachineId, id: SnapshotId): Promise<void> {
    await this.enter("keepMemoryBase", machine, id);
    this.finished(id, "memory");
    this.machines.set(machine, { ...this.machines.get(machine), memoryBase: id });
  }

  async dropMemoryBase(machine: MachineId): Promise<void> {
    await this.enter("dropMemoryBase", machine);
    const found = this.machines.get(machine);
    if (found === undefined) return;
    const { memoryBase: _dropped, ...rest } = found;
    this.machines.set(machine, rest);
  }

  async openArtifact(id: SnapshotId, kind: ArtifactKind): Promise<ReadableFile> {
    await this.enter("openArtifact", id, kind);
    const { manifest } = this.finished(id, "manifest");
    if (manifest === undefined) throw new AppError("snapshot_invalid", `the snapshot ${id} has no manifest`);
    const file = kind === "manifest" ? recordOf(manifest) : manifest[kind];
    if (file === undefined) throw new AppError("artifact_not_found", `the snapshot ${id} has no ${kind}`);
    this.finished(id, kind);
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
    await this.enter("uploadArtifacts", id);
    signal?.throwIfAborted();
    return {
      artifacts: plan.artifacts.map(({ artifact_id, parts }) => {
        const kind = kindOf(artifact_id);
        if (kind === undefined)
          throw new AppError("artifact_not_found", `the snapshot ${id} has no ${artifact_id}`);
        this.finished(id, kind);
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
    await this.enter("fetchSnapshot", id);
    signal?.throwIfAborted();
    if (this.snapshots.has(id)) throw new AppError("snapshot_exists", `${id} exists`);
    const manifest = this.remote.get(id);
    if (manifest === undefined)
      throw new AppError("snapshot_unavailable", `the snapshot ${id} could not be downloaded`);
    return { ...this.#finish(id, structuredClone(manifest)), manifest_content: structuredClone(manifest) };
  }

  async removeSnapshot(id: SnapshotId): Promise<void> {
    await this.enter("removeSnapshot", id);
    this.snapshots.delete(id);
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
