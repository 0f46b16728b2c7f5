import { createHash } from "node:crypto";
import { AppError } from "../../../src/contract/errors.ts";
import type { MachineId, SnapshotId } from "../../../src/contract/ids.ts";
import type { Artifact } from "../../../src/contract/machine.ts";
import type { ImageRef } from "../../../src/model/records.ts";
import type { CloneMode, MadeDisk, Storage, StorageUsage } from "../../../src/storage/types.ts";

const MIB = 1024 * 1024;

/** Disks and images that are only names here. Knows which exist. */
export class FakeStorage implements Storage {
  readonly cloneMode: CloneMode = "reflink";
  readonly machines = new Map<MachineId, { disk?: number }>();
  readonly snapshots = new Map<SnapshotId, { finished: boolean; size: number }>();
  readonly images = new Set(["debian-slim"]);
  /** Text that `tail` returns for the console and the VMM's log. */
  consoleTail = "";
  vmmLogTail = "";
  seedsWritten = 0;
  /** Throws this at the named call. */
  readonly failures = new Map<keyof Storage, Error>();
  /** Awaited in `localImage`: lets a test hold a create up. */
  gate: Promise<void> = Promise.resolve();

  #fail(call: keyof Storage): void {
    const failure = this.failures.get(call);
    if (failure !== undefined) throw failure;
  }

  open(): Promise<void> {
    return Promise.resolve();
  }

  async localImage(name: string, signal?: AbortSignal): Promise<ImageRef> {
    await this.gate;
    signal?.throwIfAborted();
    this.#fail("localImage");
    if (!this.images.has(name))
      throw new AppError("image_not_found", `there is no image ${name}: make images`);
    return this.#image(`file:///images/${name}/vmlinuz`, `file:///images/${name}/rootfs.ext4`, name);
  }

  async fetchImage(artifact: Artifact): Promise<ImageRef> {
    await this.gate;
    this.#fail("fetchImage");
    return this.#image(artifact.kernel_image_url, artifact.rootfs_url);
  }

  #image(kernel: string, rootfs: string, name?: string): ImageRef {
    const digest = (text: string): string => createHash("sha256").update(text).digest("hex");
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

  imageFiles(): Promise<{ kernel: string; initrd: string; rootfs: string }> {
    return Promise.resolve({ kernel: "/fake/kernel", initrd: "/fake/initrd", rootfs: "/fake/rootfs" });
  }

  async makeMachine(id: MachineId): Promise<void> {
    await Promise.resolve();
    this.#fail("makeMachine");
    if (this.machines.has(id)) throw new AppError("internal", `the folder of ${id} exists`);
    this.machines.set(id, {});
  }

  async cloneImageDisk(image: ImageRef, id: MachineId, sizeBytes: number | undefined): Promise<MadeDisk> {
    await Promise.resolve();
    this.#fail("cloneImageDisk");
    return this.#disk(id, image.rootfs_size_bytes, sizeBytes);
  }

  async cloneSnapshotDisk(
    snapshot: SnapshotId,
    id: MachineId,
    sizeBytes: number | undefined,
  ): Promise<MadeDisk> {
    await Promise.resolve();
    this.#fail("cloneSnapshotDisk");
    const source = this.snapshots.get(snapshot);
    if (source?.finished !== true) throw new AppError("snapshot_invalid", `snapshot ${snapshot} has no disk`);
    return this.#disk(id, source.size, sizeBytes);
  }

  #disk(id: MachineId, from: number, wanted: number | undefined): MadeDisk {
    if (wanted !== undefined && wanted < from)
      throw new AppError("disk_too_small", "smaller than what it is made from");
    const size_bytes = wanted ?? from;
    this.machines.set(id, { disk: size_bytes });
    return { clone: this.cloneMode, size_bytes };
  }

  syncMachine(): Promise<void> {
    return Promise.resolve();
  }

  writeSeed(): Promise<void> {
    this.seedsWritten += 1;
    return Promise.resolve();
  }

  handOver(): Promise<void> {
    return Promise.resolve();
  }

  async takeBack(): Promise<void> {
    await Promise.resolve();
    this.#fail("takeBack");
  }

  async growDisk(id: MachineId, sizeBytes: number): Promise<number> {
    await Promise.resolve();
    this.#fail("growDisk");
    const size_bytes = Math.max(this.machines.get(id)?.disk ?? 0, sizeBytes);
    this.machines.set(id, { disk: size_bytes });
    return size_bytes;
  }

  machineFiles(id: MachineId): { disk: string; seed: string; console: string; vmmLog: string } {
    return {
      disk: `/fake/${id}/disk.img`,
      seed: `/fake/${id}/seed.img`,
      console: `/fake/${id}/console.log`,
      vmmLog: `/fake/${id}/vmm.log`,
    };
  }

  tail(path: string): Promise<string> {
    return Promise.resolve(path.endsWith("console.log") ? this.consoleTail : this.vmmLogTail);
  }

  async removeMachine(id: MachineId): Promise<void> {
    await Promise.resolve();
    this.#fail("removeMachine");
    this.machines.delete(id);
  }

  async stageSnapshot(machine: MachineId, id: SnapshotId): Promise<MadeDisk> {
    await Promise.resolve();
    this.#fail("stageSnapshot");
    const size = this.machines.get(machine)?.disk ?? 0;
    this.snapshots.set(id, { finished: false, size });
    return { clone: this.cloneMode, size_bytes: size };
  }

  async finishSnapshot(id: SnapshotId): Promise<{
    disk: { size_bytes: number; sha256_hex: string };
    manifest: { size_bytes: number; sha256_hex: string };
  }> {
    await Promise.resolve();
    this.#fail("finishSnapshot");
    const size = this.snapshots.get(id)?.size ?? 0;
    this.snapshots.set(id, { finished: true, size });
    return {
      disk: { size_bytes: size, sha256_hex: "a".repeat(64) },
      manifest: { size_bytes: 2, sha256_hex: "b".repeat(64) },
    };
  }

  removeSnapshot(id: SnapshotId): Promise<void> {
    this.snapshots.delete(id);
    return Promise.resolve();
  }

  list(): Promise<{ machines: MachineId[]; snapshots: SnapshotId[] }> {
    return Promise.resolve({ machines: [...this.machines.keys()], snapshots: [...this.snapshots.keys()] });
  }

  freeBytes(): Promise<number> {
    return Promise.resolve(1024 * MIB);
  }

  usage(): Promise<StorageUsage> {
    return Promise.resolve({
      total_bytes: 2048 * MIB,
      free_bytes: 1024 * MIB,
      images: { files: 3, apparent_bytes: 600 * MIB, used_bytes: 200 * MIB },
      machines: [...this.machines].map(([id, { disk = 0 }]) => ({
        id,
        apparent_bytes: disk,
        used_bytes: MIB,
      })),
      snapshots: [...this.snapshots].map(([id, { size }]) => ({ id, apparent_bytes: size, used_bytes: MIB })),
    });
  }
}
