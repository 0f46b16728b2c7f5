import { readdir, readlink } from "node:fs/promises";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type SnapshotId, snapshotId } from "../../../src/contract/ids.ts";
import type { ArtifactKind, RemoteSnapshot, UploadSnapshot } from "../../../src/contract/snapshot.ts";
import type { StorageOptions } from "../../../src/storage/storage.ts";
import type { FinishedSnapshot } from "../../../src/storage/types.ts";
import { type PartStore, startPartStore } from "./part-store.ts";
import { MIB, type Taken, type WithMachine, takeWithMemory, withMachine } from "./snapshot-support.ts";

export const S = snapshotId("s");
export const KINDS = ["disk", "memory", "vmstate", "manifest"] as const satisfies readonly ArtifactKind[];
/** Waits short enough for tests. */
export const QUICK = { backoffMs: 5, uploadStallMs: 400 } as const;
/** Ids of artifacts are the host's affair. */
export const kindOf = (id: string): ArtifactKind | undefined => KINDS.find((kind) => id === `s.${kind}`);

export interface Traveller extends WithMachine {
  readonly store: PartStore;
  readonly taken: Taken;
}

/** A storage with a snapshot with memory, and a store to send it to. */
export async function withSnapshot(
  t: TestContext,
  artifacts: NonNullable<StorageOptions["artifacts"]> = {},
): Promise<Traveller> {
  const place = await withMachine(t, { artifacts: { ...QUICK, ...artifacts } });
  const taken = await takeWithMemory(place, S);
  return { ...place, taken, store: await startPartStore(t) };
}

function recordsOf(
  finished: FinishedSnapshot,
): { kind: ArtifactKind; size_bytes: number; sha256_hex: string }[] {
  return KINDS.flatMap((kind) => {
    const record = finished[kind];
    return record === undefined ? [] : [{ kind, ...record }];
  });
}

/** A plan for all files of a snapshot, in parts of `partBytes`. */
export function planFor(finished: FinishedSnapshot, store: PartStore, partBytes = 3 * MIB): UploadSnapshot {
  return {
    artifacts: recordsOf(finished).map(({ kind, size_bytes }) => ({
      artifact_id: `s.${kind}`,
      object_key: `snapshots/s/${kind}`,
      upload_id: `upload-${kind}`,
      parts: Array.from({ length: Math.max(1, Math.ceil(size_bytes / partBytes)) }, (_, index) => ({
        part_number: index + 1,
        offset_bytes: index * partBytes,
        size_bytes: Math.min(partBytes, size_bytes - index * partBytes),
        upload_url: `${store.url}/parts/${kind}/${index + 1}?partNumber=${index + 1}&X-Amz-Signature=secret`,
      })),
    })),
  };
}

/** The snapshot as a restore on another host names it. */
export function remoteOf(finished: FinishedSnapshot, store: PartStore, id: SnapshotId = S): RemoteSnapshot {
  return {
    snapshot_id: id,
    machine_id: "m",
    image_id: "slim",
    artifacts: recordsOf(finished).map(({ kind, size_bytes, sha256_hex }) => ({
      id: `${id}.${kind}`,
      kind,
      name: kind,
      size_bytes,
      sha256_hex,
      object_key: `snapshots/s/${kind}`,
      download_url: `${store.url}/objects/${kind}?X-Amz-Signature=secret`,
    })),
  };
}

/** How many files and sockets this process has open. */
export async function openDescriptors(): Promise<number> {
  return (await descriptors()).length;
}

/** What each descriptor leads to. */
async function descriptors(): Promise<string[]> {
  const names = await readdir("/proc/self/fd");
  return Promise.all(names.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => "closed meanwhile")));
}

/** A file and a socket of a store that no longer reads stay open until the test ends. */
export const STALLED_STORE = 2;

/** Waits until no more are open than before: the other end of a socket of the test's own server closes a little later. */
export async function noMoreDescriptorsThan(before: number): Promise<void> {
  for (let waits = 0; (await openDescriptors()) > before; waits += 1) {
    if (waits === 100)
      throw new Error(`more descriptors are open than ${before}: ${(await descriptors()).join(", ")}`);
    await sleep(20);
  }
}
