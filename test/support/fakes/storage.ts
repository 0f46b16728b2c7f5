import { createHash } from "node:crypto";
import { AppError } from "../../../src/contract/errors.ts";
import { type MachineId, machineId, type SnapshotId, snapshotId } from "../../../src/contract/ids.ts";
import type { Artifact } from "../../../src/contract/machine.ts";
import type { HostItem, Mended } from "../../../src/model/inventory.ts";
import type { ImageRef } from "../../../src/model/records.ts";
import type {
  KnownFiles,
  MachineFiles,
  MadeDisk,
  Storage,
  StorageUsage,
} from "../../../src/storage/types.ts";
import { FakeSnapshots } from "./snapshots.ts";

const MIB = 1024 * 1024;

const digest = (text: string): string => createHash("sha256").update(text).digest("hex");

/** Disks, memory and images that are only names here. Knows which exist. */
export class FakeStorage extends FakeSnapshots implements Storage {
  readonly images = new Set(["debian-slim"]);
  /** Text that `tail` returns for the console and the VMM's log. */
  consoleTail = "";
  vmmLogTail = "";
  seedsWritten = 0;
  /** Awaited in `localImage`: lets a test hold a create up. */
  gate: Promise<void> = Promise.resolve();

  async open(): Promise<void> {
    await this.enter("open");
  }

  async localImage(name: string, signal?: AbortSignal): Promise<ImageRef> {
    await this.gate;
    signal?.throwIfAborted();
    await this.enter("localImage", name);
    if (!this.images.has(name))
      throw new AppError("image_not_found", `there is no image ${name}: make images`);
    return this.#image(`file:///images/${name}/vmlinuz`, `file:///images/${name}/rootfs.ext4`, name);
  }

  async fetchImage(artifact: Artifact): Promise<ImageRef> {
    await this.gate;
    await this.enter("fetchImage");
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
    await this.enter("imageFiles");
    return { kernel: "/fake/kernel", initrd: "/fake/initrd", rootfs: "/fake/rootfs" };
  }

  async makeMachine(id: MachineId): Promise<void> {
    await this.enter("makeMachine", id);
    if (this.machines.has(id)) throw new AppError("internal", `the folder of ${id} exists`);
    this.machines.set(id, {});
  }

  async cloneImageDisk(image: ImageRef, id: MachineId, sizeBytes: number | undefined): Promise<MadeDisk> {
    await this.enter("cloneImageDisk", id);
    return this.#disk(id, image.rootfs_size_bytes, sizeBytes);
  }

  async cloneSnapshotDisk(
    snapshot: SnapshotId,
    id: MachineId,
    sizeBytes: number | undefined,
  ): Promise<MadeDisk> {
    await this.enter("cloneSnapshotDisk", snapshot, id);
    return this.#disk(id, this.finished(snapshot, "disk").size, sizeBytes);
  }

  #disk(id: MachineId, from: number, wanted: number | undefined): MadeDisk {
    if (wanted !== undefined && wanted < from)
      throw new AppError("disk_too_small", "smaller than what it is made from");
    const size_bytes = wanted ?? from;
    this.machines.set(id, { ...this.machines.get(id), disk: size_bytes });
    return { clone: this.cloneMode, size_bytes };
  }

  async syncMachine(id: MachineId): Promise<void> {
    await this.enter("syncMachine", id);
  }

  readonly #seeds = new Map<MachineId, Uint8Array>();

  async writeSeed(id: MachineId, seed: Uint8Array): Promise<void> {
    await this.enter("writeSeed", id);
    this.seedsWritten += 1;
    this.#seeds.set(id, seed);
  }

  async readSeed(id: MachineId): Promise<Uint8Array> {
    await this.enter("readSeed", id);
    return this.#seeds.get(id) ?? Buffer.from("{}");
  }

  /** Machines whose disk is their VMM's to write. */
  readonly handedOver = new Set<MachineId>();

  async handOver(id: MachineId): Promise<void> {
    await this.enter("handOver", id);
    this.handedOver.add(id);
  }

  async takeBack(id: MachineId): Promise<void> {
    await this.enter("takeBack", id);
    this.handedOver.delete(id);
  }

  async growDisk(id: MachineId, sizeBytes: number): Promise<number> {
    await this.enter("growDisk", id);
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
    await this.enter("boundLogs", id);
  }

  async tail(path: string): Promise<string> {
    await this.enter("tail", path);
    return path.endsWith("console.log") ? this.consoleTail : this.vmmLogTail;
  }

  async removeMachine(id: MachineId): Promise<void> {
    await this.enter("removeMachine", id);
    this.machines.delete(id);
  }

  /** Folders without a record are leaks; of machines that are whole, a disk that is not there is missing. */
  async inventory(known: KnownFiles): Promise<HostItem[]> {
    await this.enter("inventory");
    const folder = (of: "machine" | "snapshot", id: string, isKnown: boolean): HostItem => ({
      resource: "folder",
      name: `/fake/${of}s/${id}`,
      holder: { of, id },
      status: isKnown ? "ok" : "leaked",
    });
    return [
      ...[...this.machines.keys()].map((id) => folder("machine", id, known.machines.has(id))),
      ...[...this.snapshots.keys()].map((id) => folder("snapshot", id, known.snapshots.has(id))),
      ...[...known.machines].map(([id, { whole }]): HostItem => {
        const isThere = this.machines.get(machineId(id))?.disk !== undefined;
        const status = isThere || !whole ? "ok" : "missing";
        return {
          resource: "file",
          name: `/fake/machines/${id}/disk.img`,
          holder: { of: "machine", id },
          status,
        };
      }),
    ];
  }

  async mend(items: readonly HostItem[]): Promise<Mended[]> {
    const results: Mended[] = [];
    for (const { resource, name, holder, status } of items) {
      const isLeak = status === "leaked";
      if (isLeak && holder.of === "machine") await this.removeMachine(machineId(holder.id));
      if (isLeak && holder.of === "snapshot") await this.removeSnapshot(snapshotId(holder.id));
      results.push({ resource, name, action: isLeak ? "removed" : "left as it is", ok: isLeak });
    }
    return results;
  }

  async list(): Promise<{ machines: MachineId[]; snapshots: SnapshotId[] }> {
    await this.enter("list");
    return { machines: [...this.machines.keys()], snapshots: [...this.snapshots.keys()] };
  }

  async freeBytes(): Promise<number> {
    await this.enter("freeBytes");
    return this.free;
  }

  async usage(): Promise<StorageUsage> {
    await this.enter("usage");
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
