import { link, mkdir, rm } from "node:fs/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import { removeTree, syncDirectory } from "../system/files.ts";
import { BLOCK } from "./clone.ts";
import { storageError } from "./errors.ts";
import type { Layout } from "./layout.ts";
import { createFile, openForReading, openForWriting, setOwner, syncFile } from "./owned-file.ts";

/**
 * The folder of each machine. Root works on these paths only, never on their hard links in a jail,
 * and opens files that a VMM may write without following links.
 */
export class MachineFolders {
  readonly #layout: Layout;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  async make(id: MachineId): Promise<void> {
    try {
      await mkdir(this.#layout.machine(id).folder, { mode: 0o700 });
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw storageError(error, "Making the machine's folder");
      throw new AppError("internal", `The folder of the machine ${id} is there already.`, { cause: error });
    }
  }

  async writeSeed(id: MachineId, seed: Uint8Array): Promise<void> {
    const { seed: path } = this.#layout.machine(id);
    try {
      // A new file: a jail that still holds the old one keeps it as it was.
      await rm(path, { force: true });
      await using handle = await createFile(path, 0o444);
      await handle.writeFile(seed);
    } catch (error) {
      throw storageError(error, "Writing the seed");
    }
  }

  async readSeed(id: MachineId): Promise<Uint8Array> {
    try {
      await using handle = await openForReading(this.#layout.machine(id).seed);
      return await handle.readFile();
    } catch (error) {
      throw storageError(error, "Reading the seed");
    }
  }

  /**
   * Four syncs, of which the first does nearly all the work: the disk is a clone whose blocks (or whose sharing of them)
   * exist in memory only until then. Logs are not synced: they are of use while the host lives.
   */
  async sync(id: MachineId): Promise<void> {
    const { folder, disk, seed } = this.#layout.machine(id);
    try {
      await syncFile(disk);
      await syncFile(seed);
      await syncDirectory(folder);
      await syncDirectory(this.#layout.machines);
    } catch (error) {
      throw storageError(error, "Making the machine's files durable");
    }
  }

  async handOver(id: MachineId, uid: number, gid: number): Promise<void> {
    const { disk, console: consoleLog, vmmLog, metrics } = this.#layout.machine(id);
    try {
      for (const path of [consoleLog, vmmLog, metrics]) {
        await rm(path, { force: true });
        await using handle = await createFile(path, 0o600);
        await handle.chown(uid, gid);
      }
      await setOwner(disk, uid, gid, 0o600);
    } catch (error) {
      throw storageError(error, "Handing the disk over");
    }
  }

  async takeBack(id: MachineId): Promise<void> {
    try {
      await setOwner(this.#layout.machine(id).disk, 0, 0, 0o600);
    } catch (error) {
      // One that somebody removed is nobody's any more; the machine must still come to its end.
      if (errnoOf(error) === "ENOENT") return;
      throw storageError(error, "Taking the disk back");
    }
  }

  async grow(id: MachineId, sizeBytes: number): Promise<number> {
    const wanted = Math.ceil(sizeBytes / BLOCK) * BLOCK;
    try {
      await using handle = await openForWriting(this.#layout.machine(id).disk);
      const { size } = await handle.stat();
      if (wanted <= size) return size;
      await handle.truncate(wanted);
      await handle.sync();
      return wanted;
    } catch (error) {
      throw storageError(error, "Growing the disk");
    }
  }

  /**
   * Links `memory`, a sealed file, as the memory that the machine's next diff stands on; one that is there stays until
   * this one is in its place. Not made durable: a loss of power ends the guest, and with it the use of its base.
   */
  async keepMemoryBase(id: MachineId, memory: string): Promise<void> {
    const { memoryBase } = this.#layout.machine(id);
    try {
      // A machine without one in between is no harm: whoever is cut off here finds the base void.
      await rm(memoryBase, { force: true });
      await link(memory, memoryBase);
    } catch (error) {
      throw storageError(error, "Keeping the snapshot's memory for the next diff");
    }
  }

  async dropMemoryBase(id: MachineId): Promise<void> {
    await rm(this.#layout.machine(id).memoryBase, { force: true });
  }

  async remove(id: MachineId): Promise<void> {
    await removeTree(this.#layout.machine(id).folder, this.#layout.trash);
  }
}
