import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import type { TestContext } from "node:test";
import { type MachineId, type SnapshotId, machineId } from "../../../src/contract/ids.ts";
import type { ManifestDraft } from "../../../src/model/manifest.ts";
import type { ImageRef } from "../../../src/model/records.ts";
import type { StorageOptions } from "../../../src/storage/storage.ts";
import type { FinishedSnapshot, Storage } from "../../../src/storage/types.ts";
import { type Place, openStorage, writeImage } from "./support.ts";

export const MIB = 1024 * 1024;
/** The uid of the VMM of the tests. */
export const UID = 200_007;
export const MEMORY_BYTES = 16 * MIB;
export const M = machineId("m");

export interface WithMachine extends Place {
  readonly image: ImageRef;
  /** What the machine's disk holds. */
  readonly rootfs: Buffer;
}

/** A storage with one machine, which has a disk. */
export async function withMachine(
  t: TestContext,
  options: Partial<StorageOptions> = {},
): Promise<WithMachine> {
  const place = await openStorage(t, options);
  const { rootfs } = await writeImage(place.imageDir, "slim");
  const image = await place.storage.localImage("slim");
  await place.storage.makeMachine(M);
  await place.storage.cloneImageDisk(image, M, undefined);
  return { ...place, image, rootfs };
}

/** What a host says of a snapshot. */
export function draft(
  image: ImageRef,
  id: SnapshotId,
  memory_kind: ManifestDraft["memory_kind"] = "none",
): ManifestDraft {
  return {
    format: 2,
    snapshot_id: id,
    machine_id: M,
    created_at: "2026-01-02T03:04:05.000Z",
    image,
    vcpus: 1,
    memory_mib: MEMORY_BYTES / MIB,
    ready: "ssh",
    hardware: { io_engine: "Sync", pci: false, huge_pages: "None", smt: false, track_dirty_pages: true },
    consistency: "synced",
    host: { kernel: "6.1.0", architecture: "x86_64", cpu_vendor: "v", cpu_model: "m", cpu_flags: ["sse2"] },
    vmm: { name: "firecracker", version: "1.17.0" },
    memory_kind,
    ...(memory_kind === "none"
      ? {}
      : {
          guest: {
            hostname: "m",
            guest_machine_id: "0".repeat(32),
            ssh_host_public_key: "ssh-ed25519 AAAA",
            login_key: "a private key",
          },
        }),
  };
}

/** The memory of a guest: some pages that hold something, zeros that were written between them, and nothing at its end. */
export function guestMemory(): Buffer {
  const bytes = Buffer.alloc(MEMORY_BYTES);
  randomBytes(100_000).copy(bytes, 4096);
  randomBytes(4096).copy(bytes, 7 * MIB);
  return bytes;
}

/** Writes into a file that is there, as a VMM does: zeros are written, too. */
export async function writeAsVmm(path: string, bytes: Uint8Array, at = 0): Promise<void> {
  await using handle = await open(path, "r+");
  await handle.write(bytes, 0, bytes.length, at);
}

export interface Taken extends FinishedSnapshot {
  readonly memoryBytes: Buffer;
  readonly stateBytes: Buffer;
}

interface HowTaken {
  readonly kind?: "full" | "diff";
  readonly machine?: MachineId;
  readonly memory?: Buffer;
  /** The VMM writes the memory from here, as far as `to`. */
  readonly from?: number;
  readonly to?: number;
  /** Called when all is staged. */
  readonly sealing?: () => Promise<void>;
}

/** Takes a snapshot with memory of the machine, as the host does. */
export async function takeWithMemory(
  { storage, image }: { readonly storage: Storage; readonly image: ImageRef },
  id: SnapshotId,
  how: HowTaken = {},
): Promise<Taken> {
  const { kind = "full", machine = M, memory: memoryBytes = guestMemory(), from = 0, to } = how;
  const stateBytes = randomBytes(5000);
  const owner = { uid: UID, gid: UID, memoryBytes: MEMORY_BYTES };
  const { state, memory } = await storage.stageMemory(machine, id, kind, owner);
  await writeAsVmm(state, stateBytes);
  await writeAsVmm(memory, memoryBytes.subarray(from, to), from);
  await storage.stageSnapshot(machine, id);
  await how.sealing?.();
  const finished = await storage.finishSnapshot(id, draft(image, id, kind));
  return { ...finished, memoryBytes, stateBytes };
}
