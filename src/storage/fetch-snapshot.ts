import { mkdir, readFile, rm, statfs } from "node:fs/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import { type SnapshotId, snapshotId } from "../contract/ids.ts";
import type { RemoteSnapshot } from "../contract/snapshot.ts";
import type { Manifest } from "../model/manifest.ts";
import { exists, removeTree } from "../system/files.ts";
import type { ArtifactSettings } from "./artifacts.ts";
import type { Cloner } from "./clone.ts";
import type { FileDigest } from "./digest.ts";
import type { DigestStore } from "./digest-store.ts";
import { storageError } from "./errors.ts";
import type { Layout, SnapshotPaths } from "./layout.ts";
import {
  type RemoteArtifact,
  type RemoteArtifacts,
  checkAgreement,
  remoteArtifacts,
} from "./remote-artifacts.ts";
import { fetchRemoteFile } from "./remote-file.ts";
import { type SealedFiles, alreadyThere, placeSnapshot, recordOf } from "./seal.ts";
import { parseManifest } from "./snapshot-manifest.ts";
import type { FinishedSnapshot } from "./types.ts";

/** What snapshots are fetched with. */
export interface SnapshotFetching {
  readonly layout: Layout;
  readonly cloner: Cloner;
  readonly store: DigestStore;
  readonly settings: ArtifactSettings;
}

/**
 * Brings a snapshot that another host made here: what the request says is judged first, then the manifest, then the rest
 * comes. A failure at any point leaves nothing. Throws as `Storage.fetchSnapshot` does.
 */
export async function fetchSnapshot(
  room: SnapshotFetching,
  remote: RemoteSnapshot,
  signal: AbortSignal = new AbortController().signal,
): Promise<FinishedSnapshot & { manifest_content: Manifest }> {
  const id = snapshotId(remote.snapshot_id);
  const artifacts = remoteArtifacts(remote, room.settings);
  const staged = room.layout.stagedSnapshot(id);
  try {
    signal.throwIfAborted();
    const freeBytes = await checkRoom(room.layout, artifacts);
    await using undo = new AsyncDisposableStack();
    await makeStaging(room.layout, id);
    undo.defer(() => removeTree(staged.folder, room.layout.trash));

    const fetch = (artifact: RemoteArtifact, target: string, until: AbortSignal): Promise<FileDigest> =>
      fetchRemoteFile(artifact, target, { ...room, freeBytes, signal: until });
    const text = await fetchManifest(artifacts.manifest, staged, (artifact, target) =>
      fetch(artifact, target, signal),
    );
    const content = readManifest(text, id);
    checkAgreement(remote, artifacts, content);
    await checkImage(room.store, content);
    const files = await fetchFiles(artifacts, staged, fetch, signal);
    const manifest = await placeSnapshot(room.layout, id, files, text);
    const { disk, memory, vmstate } = files;
    return {
      disk: recordOf(disk),
      ...(memory && { memory: recordOf(memory) }),
      ...(vmstate && { vmstate: recordOf(vmstate) }),
      manifest,
      manifest_content: content,
    };
  } catch (error) {
    signal.throwIfAborted();
    throw storageError(error, `Fetching the snapshot ${id}`);
  }
}

/** Which of them are mostly holes cannot be told from afar: there must be room for all bytes. Returns how many are free. */
async function checkRoom(layout: Layout, artifacts: RemoteArtifacts): Promise<number> {
  const needed = Object.values(artifacts).reduce((sum, { size_bytes }) => sum + size_bytes, 0);
  const { bavail, bsize } = await statfs(layout.root);
  const free = bavail * bsize;
  if (free >= needed) return free;
  throw new AppError("disk_full", `The snapshot has ${needed} bytes, and only ${free} are free.`, {
    details: { needed_bytes: needed, free_bytes: free },
  });
}

async function makeStaging(layout: Layout, id: SnapshotId): Promise<void> {
  if (await exists(layout.snapshot(id).folder)) throw alreadyThere(id);
  try {
    await mkdir(layout.stagedSnapshot(id).folder, { mode: 0o700 });
  } catch (error) {
    throw errnoOf(error) === "EEXIST" ? alreadyThere(id, error) : error;
  }
}

/** The bytes of the manifest, which are kept as they are: the snapshot is known by their digest. */
async function fetchManifest(
  artifact: RemoteArtifact,
  staged: SnapshotPaths,
  fetch: (artifact: RemoteArtifact, target: string) => Promise<FileDigest>,
): Promise<Buffer> {
  const target = `${staged.manifest}.fetched`;
  await fetch(artifact, target);
  const text = await readFile(target);
  await rm(target);
  return text;
}

function readManifest(text: Buffer, id: SnapshotId): Manifest {
  const parsed = parseManifest(text.toString("utf8"));
  if ("problem" in parsed) throw unusable(id, parsed.problem);
  const { memory_kind, memory } = parsed.manifest;
  if ((memory_kind === "none") !== (memory === undefined))
    throw unusable(id, `its memory is of the kind ${memory_kind}, which its files contradict`);
  return parsed.manifest;
}

function unusable(id: SnapshotId, problem: string): AppError {
  return new AppError("snapshot_invalid", `The manifest of the snapshot ${id} cannot be used: ${problem}.`, {
    details: { artifact: "manifest", problem },
  });
}

/** The image's root disk is in the snapshot's own; what boots it, or stands behind its memory, is not. */
async function checkImage(store: DigestStore, { image }: Manifest): Promise<void> {
  for (const what of ["kernel", "initrd"] as const) {
    const sha256 = image[`${what}_sha256`];
    if ((await store.sizeOf(sha256)) !== undefined) continue;
    const name = image.name ?? image.rootfs_url;
    throw new AppError(
      "image_invalid",
      `This host does not have the ${what} ${sha256} of the snapshot's image (${name}). Build or copy the same image and ` +
        "create a machine from it once, which imports it.",
      { details: { missing: what, sha256, image: name } },
    );
  }
}

/** Fetches all but the manifest, side by side. When one of them fails, the others are broken off. */
async function fetchFiles(
  { disk, memory, vmstate }: RemoteArtifacts,
  staged: SnapshotPaths,
  fetch: (artifact: RemoteArtifact, target: string, until: AbortSignal) => Promise<FileDigest>,
  signal: AbortSignal,
): Promise<SealedFiles> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const one = async (artifact: RemoteArtifact): Promise<FileDigest> => {
    try {
      return await fetch(artifact, staged[artifact.kind], either);
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  };
  const none = Promise.resolve(undefined);
  const work = [one(disk), memory ? one(memory) : none, vmstate ? one(vmstate) : none] as const;
  await Promise.allSettled(work);
  failed.signal.throwIfAborted();
  const [fetchedDisk, fetchedMemory, fetchedState] = await Promise.all(work);
  return {
    disk: fetchedDisk,
    ...(fetchedMemory && { memory: fetchedMemory }),
    ...(fetchedState && { vmstate: fetchedState }),
  };
}
