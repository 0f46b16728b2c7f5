import { AppError } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import type { SnapshotRecord } from "../model/records.ts";
import type { ReadableFile } from "../storage/types.ts";
import type { HostContext } from "./context.ts";
import { artifactKind } from "./present.ts";

/**
 * One file of a snapshot, open for reading, for as long as the caller wants: a delete of the snapshot takes away its
 * name, and the bytes stay until it is closed. Throws `snapshot_not_found`, `artifact_not_found`, `snapshot_invalid`.
 */
export async function openArtifact(
  { state, storage, snapshotLocks }: HostContext,
  id: SnapshotId,
  artifactId: string,
): Promise<ReadableFile> {
  using _lock = await snapshotLocks.acquireShared(id);
  const kind = artifactKind(snapshotOf(state, id), artifactId);
  if (kind === undefined) {
    throw new AppError("artifact_not_found", `snapshot ${id} has no artifact ${artifactId}`, {
      details: { snapshot_id: id, artifact_id: artifactId },
    });
  }
  return await storage.openArtifact(id, kind);
}

/** The record of a snapshot that is here. Throws `snapshot_not_found`. */
export function snapshotOf({ state }: Pick<HostContext["state"], "state">, id: SnapshotId): SnapshotRecord {
  const record = state.snapshots.get(id);
  if (record === undefined) throw new AppError("snapshot_not_found", `there is no snapshot ${id}`);
  return record;
}
