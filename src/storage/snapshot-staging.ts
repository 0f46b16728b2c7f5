import { mkdir, rm, statfs } from "node:fs/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { Manifest, ManifestDraft } from "../model/manifest.ts";
import { exists, removeTree } from "../system/files.ts";
import type { Cloner } from "./clone.ts";
import { storageError } from "./errors.ts";
import { FILE_NAMES, type Layout } from "./layout.ts";
import { createFile, setOwner } from "./owned-file.ts";
import { type SealedFiles, alreadyThere, placeSnapshot, recordOf, sealFile } from "./seal.ts";
import { parseManifest } from "./snapshot-manifest.ts";
import type { FinishedSnapshot, MadeDisk } from "./types.ts";
import { type Written, copyWritten } from "./vmm-written.ts";

const MIB = 1024 * 1024;
/** A real state file has some 100 KiB. */
const MOST_STATE_BYTES = 64 * MIB;

/** The VMM that is to write a snapshot, and how much memory its guest has. */
export interface VmmOwner {
  readonly uid: number;
  readonly gid: number;
  readonly memoryBytes: number;
}

/** What a staging folder holds so far. Folders of a former run are gone: staging is emptied at start. */
interface Staged {
  disk: boolean;
  memory?: VmmOwner;
}

/** Snapshots in the making. */
export class SnapshotStaging {
  readonly #layout: Layout;
  readonly #cloner: Cloner;
  readonly #staged = new Map<SnapshotId, Staged>();

  constructor(layout: Layout, cloner: Cloner) {
    this.#layout = layout;
    this.#cloner = cloner;
  }

  async stageDisk(machine: MachineId, id: SnapshotId): Promise<MadeDisk> {
    try {
      const staged = await this.#stage(id);
      if (staged.disk) throw alreadyThere(id);
      staged.disk = true;
      return await this.#cloner.cloneDisk(
        this.#layout.machine(machine).disk,
        this.#layout.stagedSnapshot(id).disk,
        undefined,
      );
    } catch (error) {
      throw storageError(error, "Cloning the disk for the snapshot");
    }
  }

  async stageMemory(
    machine: MachineId,
    id: SnapshotId,
    kind: "full" | "diff",
    owner: VmmOwner,
  ): Promise<{ state: string; memory: string }> {
    const { memoryBase } = this.#layout.machine(machine);
    const files = this.#writtenFiles(id);
    try {
      if (kind === "diff" && !(await exists(memoryBase)))
        throw new AppError(
          "no_memory_base",
          `There is no memory of the machine ${machine} for a diff to stand on.`,
        );
      await this.#checkRoom(owner.memoryBytes);
      const staged = await this.#stage(id);
      if (staged.memory !== undefined) throw alreadyThere(id);
      staged.memory = owner;
      if (kind === "diff") await this.#cloner.clone(memoryBase, files.memory);
      else await (await createFile(files.memory, 0o600)).close();
      await (await createFile(files.state, 0o600)).close();
      for (const path of [files.memory, files.state]) await setOwner(path, owner.uid, owner.gid, 0o600);
      return files;
    } catch (error) {
      throw storageError(error, "Making the files for the guest's memory");
    }
  }

  /** The VMM writes into files of its own; what is kept are copies under the names of the sealed ones. */
  #writtenFiles(id: SnapshotId): { state: string; memory: string } {
    const { memory, vmstate } = this.#layout.stagedSnapshot(id);
    return { state: `${vmstate}.written`, memory: `${memory}.written` };
  }

  /** What the VMM writes, and the copy of it unless that shares its blocks, may take up as much as the whole memory. */
  async #checkRoom(memoryBytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.#layout.root);
    const needed = this.#cloner.mode === "reflink" ? memoryBytes : 2 * memoryBytes;
    if (bavail * bsize >= needed) return;
    throw new AppError(
      "disk_full",
      `A snapshot of this memory may take up ${needed} bytes while it is made, and only ${bavail * bsize} are free.`,
      { details: { needed_bytes: needed, free_bytes: bavail * bsize } },
    );
  }

  /** The staging folder's content, made where it is not there yet. Throws `snapshot_exists`. */
  async #stage(id: SnapshotId): Promise<Staged> {
    if (await exists(this.#layout.snapshot(id).folder)) throw alreadyThere(id);
    const known = this.#staged.get(id);
    if (known !== undefined) return known;
    try {
      await mkdir(this.#layout.stagedSnapshot(id).folder, { mode: 0o700 });
    } catch (error) {
      throw errnoOf(error) === "EEXIST" ? alreadyThere(id, error) : error;
    }
    const fresh: Staged = { disk: false };
    this.#staged.set(id, fresh);
    return fresh;
  }

  /** Seals what is staged and puts it in its place. Throws `snapshot_exists`, `disk_full`, `vmm_failed`. */
  async finish(id: SnapshotId, draft: ManifestDraft): Promise<FinishedSnapshot> {
    try {
      const staged = this.#staged.get(id);
      if (staged?.disk !== true || (staged.memory === undefined) !== (draft.memory_kind === "none"))
        throw new Error("what is staged is not what the manifest tells of");
      const files = await this.#seal(id, staged);
      const { disk, memory, vmstate } = files;
      const content: Manifest = {
        ...draft,
        disk: { name: FILE_NAMES.disk, ...recordOf(disk) },
        ...(memory && { memory: { name: FILE_NAMES.memory, ...recordOf(memory) } }),
        ...(vmstate && { vmstate: { name: FILE_NAMES.vmstate, ...recordOf(vmstate) } }),
      };
      const text = `${JSON.stringify(content, null, 2)}\n`;
      const parsed = parseManifest(text);
      if ("problem" in parsed) throw new Error(`the manifest could not be read again: ${parsed.problem}`);
      const manifest = await placeSnapshot(this.#layout, id, files, Buffer.from(text));
      this.#staged.delete(id);
      return {
        disk: recordOf(disk),
        ...(memory && { memory: recordOf(memory) }),
        ...(vmstate && { vmstate: recordOf(vmstate) }),
        manifest,
      };
    } catch (error) {
      throw storageError(error, "Finishing the snapshot");
    }
  }

  async #seal(id: SnapshotId, { memory: owner }: Staged): Promise<SealedFiles> {
    const paths = this.#layout.stagedSnapshot(id);
    if (owner === undefined) return { disk: await sealFile(paths.disk) };
    const written = this.#writtenFiles(id);
    const { uid, memoryBytes } = owner;
    const state: Written = { what: "the state file", uid, minBytes: 1, maxBytes: MOST_STATE_BYTES };
    const memory: Written = {
      what: "the memory file",
      uid,
      minBytes: memoryBytes,
      maxBytes: memoryBytes,
    };
    const work = [
      sealFile(paths.disk),
      copyWritten(this.#cloner, written.memory, paths.memory, memory),
      copyWritten(this.#cloner, written.state, paths.vmstate, state),
    ] as const;
    // None of them goes on behind the failure of another.
    await Promise.allSettled(work);
    const [disk, sealedMemory, vmstate] = await Promise.all(work);
    await rm(written.state);
    await rm(written.memory);
    return { disk, memory: sealedMemory, vmstate };
  }

  async remove(id: SnapshotId): Promise<void> {
    await removeTree(this.#layout.stagedSnapshot(id).folder, this.#layout.trash);
    this.#staged.delete(id);
  }
}
