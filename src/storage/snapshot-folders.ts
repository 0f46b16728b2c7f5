import { lstat, mkdir, readFile, rename } from "node:fs/promises";
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { AppError, errnoOf } from "../contract/errors.ts";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import { exists, removeTree, syncDirectory } from "../system/files.ts";
import type { Cloner } from "./clone.ts";
import { digestFile, sha256Of } from "./digest.ts";
import { storageError } from "./errors.ts";
import type { Layout } from "./layout.ts";
import { createFile, setOwner, syncFile } from "./owned-file.ts";
import type { FinishedSnapshot, MadeDisk } from "./types.ts";

const manifestDisk = Compile(Type.Object({ disk: Type.Object({ size_bytes: Type.Integer() }) }));

/** Disk snapshots: each a folder with a disk that nobody writes any more and a manifest that says what it is. */
export class SnapshotFolders {
  readonly #layout: Layout;
  readonly #cloner: Cloner;

  constructor(layout: Layout, cloner: Cloner) {
    this.#layout = layout;
    this.#cloner = cloner;
  }

  async stage(machine: MachineId, id: SnapshotId): Promise<MadeDisk> {
    const staged = this.#layout.stagedSnapshot(id);
    try {
      if (await exists(this.#layout.snapshot(id).folder)) throw alreadyThere(id);
      await mkdir(staged.folder, { mode: 0o700 });
      return await this.#cloner.cloneDisk(this.#layout.machine(machine).disk, staged.disk, undefined);
    } catch (error) {
      if (errnoOf(error) === "EEXIST") throw alreadyThere(id, error);
      throw storageError(error, "Cloning the disk for the snapshot");
    }
  }

  async finish(id: SnapshotId, manifest: object): Promise<FinishedSnapshot> {
    const staged = this.#layout.stagedSnapshot(id);
    try {
      await setOwner(staged.disk, 0, 0, 0o444);
      const { sha256, size_bytes } = await digestFile(staged.disk);
      const disk = { size_bytes, sha256_hex: sha256 };
      const text = Buffer.from(
        `${JSON.stringify({ ...manifest, disk: { name: "disk.img", ...disk } }, null, 2)}\n`,
      );
      {
        await using handle = await createFile(staged.manifest, 0o444);
        await handle.writeFile(text);
        await handle.sync();
      }
      await syncFile(staged.disk);
      await syncDirectory(staged.folder);
      await rename(staged.folder, this.#layout.snapshot(id).folder);
      await syncDirectory(this.#layout.snapshots);
      return { disk, manifest: { size_bytes: text.length, sha256_hex: sha256Of(text) } };
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOTEMPTY" || errno === "EEXIST") throw alreadyThere(id, error);
      throw storageError(error, "Finishing the snapshot");
    }
  }

  /** Path of the snapshot's disk. Throws `snapshot_invalid` when it is missing or has another length than it should. */
  async disk(id: SnapshotId): Promise<string> {
    const { disk, manifest } = this.#layout.snapshot(id);
    try {
      const value: unknown = JSON.parse(await readFile(manifest, "utf8"));
      const { size } = await lstat(disk);
      if (manifestDisk.Check(value) && value.disk.size_bytes === size) return disk;
    } catch (error) {
      throw new AppError(
        "snapshot_invalid",
        `The files of the snapshot ${id} are missing or cannot be read.`,
        {
          cause: error,
        },
      );
    }
    throw new AppError("snapshot_invalid", `The disk of the snapshot ${id} is not what its manifest says.`);
  }

  async remove(id: SnapshotId): Promise<void> {
    await removeTree(this.#layout.stagedSnapshot(id).folder, this.#layout.trash);
    await removeTree(this.#layout.snapshot(id).folder, this.#layout.trash);
  }
}

function alreadyThere(id: SnapshotId, cause?: unknown): AppError {
  return new AppError("snapshot_exists", `The snapshot ${id} is there already.`, { cause });
}
