import type { SnapshotId } from "../contract/ids.ts";
import type { UploadSnapshot, Uploaded } from "../contract/snapshot.ts";
import { snapshotOf } from "./artifacts.ts";
import type { HostContext } from "./context.ts";
import { artifactKind } from "./present.ts";
import type { Trace } from "./trace.ts";

/**
 * POST /snapshots/{id}/upload: sends files of the snapshot as parts of uploads that the client began elsewhere. A delete
 * of the snapshot waits for it; the daemon's end breaks it off. Nothing here is changed by it, so it needs no intent: a
 * client that got no answer asks again. Throws `snapshot_not_found`, and as `Storage.uploadArtifacts`.
 */
export async function uploadSnapshot(
  context: HostContext,
  id: SnapshotId,
  plan: UploadSnapshot,
  trace: Trace,
): Promise<Uploaded> {
  using entered = context.creations.enter();
  using _lock = await context.snapshotLocks.acquireShared(id);
  entered.signal.throwIfAborted();
  const record = snapshotOf(context.state, id);
  const kindOf = (artifactId: string) => artifactKind(record, artifactId);
  return await trace.step("upload", () => context.storage.uploadArtifacts(id, plan, kindOf, entered.signal));
}
