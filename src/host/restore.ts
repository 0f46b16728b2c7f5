import { AppError } from "../contract/errors.ts";
import { machineId, type SnapshotId } from "../contract/ids.ts";
import type { RestoreSnapshot } from "../contract/snapshot.ts";
import type { Manifest } from "../model/manifest.ts";
import type { SnapshotRecord } from "../model/records.ts";
import { bringUp } from "./bring-up.ts";
import { judge } from "./compatibility.ts";
import type { HostContext } from "./context.ts";
import type { Created } from "./create.ts";
import { creation } from "./creation.ts";
import { withSnapshot } from "./fetch-snapshot.ts";
import { refuseWithoutHugePages } from "./huge-pages.ts";
import { keptRestart, requestDigest, withoutQuery } from "./request-digest.ts";
import type { Trace } from "./trace.ts";
import { refuseSmallDisk } from "./way-up.ts";

/**
 * POST /snapshots/{id}/restore: a new machine from a snapshot, with an identity of its own. One with memory goes on where
 * it stood, unless the request says `memory: false`; then, and from a disk alone, it boots. Throws `AppError`.
 */
export async function restoreSnapshot(
  context: HostContext,
  snapshot: SnapshotId,
  request: RestoreSnapshot,
  trace: Trace,
): Promise<Created> {
  refuseContradictions(snapshot, request);
  const id = machineId(request.machine_id);
  const { local_snapshot: _local, guest_config = {}, ready = "ssh", ...body } = request;
  const digestWith = (memory: boolean): string =>
    requestDigest({
      ...body,
      snapshot_id: snapshot,
      memory,
      ready,
      guest_config,
      restart: keptRestart(request.restart),
    });
  const request_sha256 = digestWith(
    request.memory ??
      hasMemory(context, snapshot, request) ??
      context.state.state.machines.get(id)?.request_sha256 === digestWith(true),
  );
  return await creation(context, id, request_sha256, (signal) =>
    // Held until the machine runs, together with other restores: nobody deletes the files while they are being used.
    withSnapshot(context, snapshot, request.snapshot, { signal, trace }, async (record) => {
      refuseOtherImage(record, request);
      const manifest = await context.storage.readManifest(snapshot);
      const live = isLive(record, request);
      if (live) refuseOtherHardware(record, request);
      else refuseSmallDisk(request.storage_bytes, record.disk.size_bytes);
      await trace.step("check", () => context.storage.checkSnapshot(snapshot, live ? "all" : "disk"));
      await refuseIncompatible(context, snapshot, manifest, live);
      const memory_mib = request.memory_mib ?? record.memory_mib;
      await refuseWithoutHugePages(manifest.hardware, memory_mib);
      return await bringUp(
        context,
        {
          operation: "restore",
          id,
          request_sha256,
          image: record.image,
          snapshot_id: snapshot,
          ...(live ? { frozen: manifest } : {}),
          vcpus: request.vcpus ?? record.vcpus,
          memory_mib,
          storage_bytes: request.storage_bytes,
          ready,
          guest_config,
          hardware: manifest.hardware,
          restart: request.restart,
        },
        trace,
        signal,
      );
    }),
  );
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
}

/**
 * Whether the snapshot holds memory, which is what a restore that does not say `memory` goes by: it is the same request
 * as one that says so. Undefined when the snapshot is gone: then it is what the machine that is there was asked for.
 */
function hasMemory(
  { state }: HostContext,
  snapshot: SnapshotId,
  { snapshot: remote }: RestoreSnapshot,
): boolean | undefined {
  const here = state.state.snapshots.get(snapshot);
  if (here !== undefined) return here.memory !== undefined;
  return remote?.artifacts.some(({ kind }) => kind === "memory");
}

/** Whether the machine shall go on where the snapshot stood. Throws `snapshot_incompatible` when there is no memory to do so. */
function isLive({ id, memory_kind = "none" }: SnapshotRecord, { memory }: RestoreSnapshot): boolean {
  if (memory_kind !== "none") return memory !== false;
  if (memory !== true) return false;
  throw new AppError(
    "snapshot_incompatible",
    `snapshot ${id} holds no memory to restore: it is a disk snapshot`,
    { details: { field: "memory" } },
  );
}

/** A guest that goes on has the hardware it was frozen with; another size in the request is refused, not ignored. */
function refuseOtherHardware(
  { id, vcpus, memory_mib, disk }: SnapshotRecord,
  request: RestoreSnapshot,
): void {
  const had = { vcpus, memory_mib, storage_bytes: disk.size_bytes };
  for (const field of ["vcpus", "memory_mib", "storage_bytes"] as const) {
    const wanted = request[field];
    if (wanted === undefined || wanted === had[field]) continue;
    throw new AppError(
      "snapshot_incompatible",
      `snapshot ${id} was taken with ${field} ${had[field]}, and a guest that goes on keeps it; with memory: false it boots with ${wanted}`,
      { details: { field, wanted, taken_with: had[field] } },
    );
  }
}

/** Refuses (`snapshot_incompatible`) what the verdict on the snapshot excludes, with the verdict, before anything is touched. */
async function refuseIncompatible(
  context: HostContext,
  id: SnapshotId,
  manifest: Manifest,
  live: boolean,
): Promise<void> {
  const verdict = await judge(context, id, manifest);
  if (verdict.restorable === "live" || (!live && verdict.restorable === "disk")) return;
  const why = verdict.reasons.map(({ text }) => text).join("; ");
  const instead = verdict.restorable === "disk" ? "; with memory: false it boots from its disk" : "";
  throw new AppError("snapshot_incompatible", `snapshot ${id} cannot be restored here: ${why}${instead}`, {
    details: { verdict },
  });
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
