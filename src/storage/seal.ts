import { rename, stat } from "node:fs/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import type { FileRecord } from "../model/records.ts";
import { syncDirectory } from "../system/files.ts";
import { type FileDigest, digestOpenFile, sha256Of } from "./digest.ts";
import { storageError } from "./errors.ts";
import { FILE_NAMES, type Layout } from "./layout.ts";
import { createFile, openForWriting } from "./owned-file.ts";
import { type Mark, markOf, writeProof } from "./snapshot-proof.ts";

/** Makes a file of ours that nobody else has open root's, 0444 and durable, and returns its digest. */
export async function sealFile(path: string): Promise<FileDigest> {
  await using handle = await openForWriting(path);
  await handle.chown(0, 0);
  await handle.chmod(0o444);
  await handle.sync();
  return await digestOpenFile(handle);
}

/** Digests of the sealed files that a staging folder holds, by kind. */
export type SealedFiles = Readonly<{ disk: FileDigest; memory?: FileDigest; vmstate?: FileDigest }>;

/**
 * Puts a staged snapshot whose files are sealed in its place: writes the manifest and the proof that the files were read
 * just now beside them, makes all durable, and renames the folder. Returns what is known of the manifest.
 * Throws `snapshot_exists`, `disk_full`.
 */
export async function placeSnapshot(
  layout: Layout,
  id: SnapshotId,
  files: SealedFiles,
  manifest: Uint8Array,
): Promise<FileRecord> {
  const staged = layout.stagedSnapshot(id);
  try {
    {
      // With memory it holds the key by which the frozen guest lets its daemon in.
      await using handle = await createFile(staged.manifest, 0o400);
      await handle.writeFile(manifest);
      await handle.sync();
    }
    const digests = { ...files, manifest: { sha256: sha256Of(manifest), size_bytes: manifest.length } };
    const marks: Record<string, Mark> = {};
    for (const kind of ["disk", "memory", "vmstate", "manifest"] as const) {
      const digest = digests[kind];
      if (digest === undefined) continue;
      marks[FILE_NAMES[kind]] = markOf(await stat(staged[kind], { bigint: true }), digest.sha256);
    }
    // Syncs the folder, too.
    await writeProof(staged.proof, marks);
    await rename(staged.folder, layout.snapshot(id).folder);
    await syncDirectory(layout.snapshots);
    return recordOf(digests.manifest);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOTEMPTY" || errno === "EEXIST") throw alreadyThere(id, error);
    throw storageError(error, "Putting the snapshot in its place");
  }
}

/** What the state and the manifest keep of a file. */
export function recordOf({ sha256, size_bytes }: FileDigest): FileRecord {
  return { size_bytes, sha256_hex: sha256 };
}

/** Says that a snapshot's name is taken. */
export function alreadyThere(id: SnapshotId, cause?: unknown): AppError {
  return new AppError("snapshot_exists", `The snapshot ${id} is there already.`, { cause });
}
