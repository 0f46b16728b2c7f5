import { AppError } from "../contract/errors.ts";
import { machineId, type SnapshotId } from "../contract/ids.ts";
import type { RestoreSnapshot } from "../contract/snapshot.ts";
import type { SnapshotRecord } from "../model/records.ts";
import { bringUp } from "./bring-up.ts";
import type { HostContext } from "./context.ts";
import type { Created } from "./create.ts";
import { creation } from "./creation.ts";
import { requestDigest, withoutQuery } from "./request-digest.ts";
import type { Trace } from "./trace.ts";

/** POST /snapshots/{id}/restore: a new machine from a snapshot's disk, with an identity of its own. Throws `AppError`. */
export async function restoreSnapshot(
  context: HostContext,
  snapshot: SnapshotId,
  request: RestoreSnapshot,
  trace: Trace,
): Promise<Created> {
  refuseContradictions(snapshot, request);
  const id = machineId(request.machine_id);
  const { local_snapshot: _local, ...body } = request;
  const request_sha256 = requestDigest({
    ...body,
    snapshot_id: snapshot,
    memory: request.memory ?? false,
    ready: request.ready ?? "ssh",
    guest_config: request.guest_config ?? {},
  });
  return await creation(context, id, request_sha256, async (signal) => {
    // Held until the machine runs, together with other restores: nobody deletes the disk while it is being cloned.
    using _lock = await context.snapshotLocks.acquireShared(snapshot);
    const record = context.state.state.snapshots.get(snapshot);
    if (record === undefined) {
      if (request.snapshot !== undefined) {
        throw new AppError(
          "not_supported",
          `snapshot ${snapshot} is not on this host, and it cannot be downloaded yet`,
          {
            details: { field: "snapshot" },
          },
        );
      }
      throw new AppError("snapshot_not_found", `there is no snapshot ${snapshot}`);
    }
    refuseOtherImage(record, request);
    return await bringUp(
      context,
      {
        operation: "restore",
        id,
        request_sha256,
        image: record.image,
        snapshot_id: snapshot,
        vcpus: request.vcpus ?? record.vcpus,
        memory_mib: request.memory_mib ?? record.memory_mib,
        storage_bytes: request.storage_bytes,
        ready: request.ready ?? "ssh",
        guest_config: request.guest_config ?? {},
      },
      trace,
      signal,
    );
  });
}

function refuseContradictions(snapshot: SnapshotId, request: RestoreSnapshot): void {
  const named = {
    "local_snapshot.snapshot_id": request.local_snapshot?.snapshot_id,
    "snapshot.snapshot_id": request.snapshot?.snapshot_id,
  };
  for (const [field, value] of Object.entries(named)) {
    if (value !== undefined && value !== snapshot) {
      throw new AppError(
        "contradiction",
        `the path names snapshot ${snapshot}, and ${field} names ${value}`,
        { details: { field } },
      );
    }
  }
  if (request.memory === true) {
    throw new AppError(
      "not_supported",
      `snapshot ${snapshot} holds no memory to restore: it is a disk snapshot`,
      {
        details: { field: "memory" },
      },
    );
  }
}

/** A disk boots with the kernel it was made with; another artifact in the request is a mistake, not a wish to be ignored. */
function refuseOtherImage({ id, image }: SnapshotRecord, { artifact }: RestoreSnapshot): void {
  if (artifact === undefined) return;
  const sameKernel =
    artifact.kernel_sha256 === undefined
      ? withoutQuery(artifact.kernel_image_url) === withoutQuery(image.kernel_image_url)
      : artifact.kernel_sha256 === image.kernel_sha256;
  const sameRootfs =
    artifact.rootfs_sha256 === undefined
      ? withoutQuery(artifact.rootfs_url) === withoutQuery(image.rootfs_url)
      : artifact.rootfs_sha256 === image.rootfs_sha256;
  if (sameKernel && sameRootfs) return;
  throw new AppError(
    "not_supported",
    `snapshot ${id} was made from another artifact than the one in the request`,
    {
      details: { field: "artifact", kernel_image_url: image.kernel_image_url, rootfs_url: image.rootfs_url },
    },
  );
}
