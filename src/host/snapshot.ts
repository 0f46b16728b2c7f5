import { release } from "node:os";
import { AppError } from "../contract/errors.ts";
import { type MachineId, type SnapshotId, snapshotId } from "../contract/ids.ts";
import type { CreateSnapshot } from "../contract/snapshot.ts";
import type { MachineRecord, OperationRecord, SnapshotRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { setAsideReason } from "./in-use.ts";
import { operationId } from "./operation-id.ts";
import { holdAsRecorded } from "./pause.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";

/** A guest that answers writes out what it has; a busy one may take a while over it. */
const SYNC_TIMEOUT_MS = 30_000;

/**
 * POST /machines/{id}/snapshots: the disk of one instant. The guest writes its caches out, stands still for as long as
 * the clone takes, and goes on; hashing comes after that. One that was paused before stays so, and could not write out.
 * A failure leaves the machine as it was and no snapshot.
 */
export async function snapshotMachine(
  context: HostContext,
  id: MachineId,
  request: CreateSnapshot,
  trace: Trace,
): Promise<SnapshotRecord> {
  const { state, storage, clock } = context;
  if (request.memory !== undefined && request.memory !== false) {
    throw new AppError("not_supported", "snapshots with memory are not supported yet: leave memory out", {
      details: { field: "memory" },
    });
  }
  const snapshot = snapshotId(request.snapshot_id);
  using _machine = await context.machineLocks.acquire(id);
  using _snapshot = await context.snapshotLocks.acquire(snapshot);
  const machine = state.state.machines.get(id);
  if (machine === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  if (state.state.snapshots.has(snapshot))
    throw new AppError("snapshot_exists", `a snapshot ${snapshot} exists`);
  const unreadable = setAsideReason(state, "snapshot", snapshot);
  if (unreadable !== undefined) {
    throw new AppError(
      "snapshot_exists",
      `the state has a snapshot ${snapshot} that cannot be read: ${unreadable}`,
    );
  }
  if (machine.phase !== "running" && machine.phase !== "stopped") {
    throw new AppError(
      "wrong_phase",
      `machine ${id} is ${machine.phase}; only a running or stopped one has a disk to keep`,
      {
        details: { phase: machine.phase },
      },
    );
  }
  return await withUndo(trace.log, async (undo) => {
    const operation: OperationRecord = {
      id: operationId("snapshot", snapshot),
      kind: "snapshot",
      machine_id: id,
      snapshot_id: snapshot,
      started_at: clock.now(),
    };
    await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
    // A guest that still stands is let go on by the next start, which the intent tells of it.
    undo.push("intent", async (failed) => {
      if (failed.length === 0) await state.commit({ drop: "operation", id: operation.id });
    });
    undo.push("files", () => storage.removeSnapshot(snapshot));

    undo.push("pause", () => holdAsRecorded(context, id));
    const synced = await trace.step("sync", () => syncGuest(context, machine));
    const { disk, pausedMs } = await trace.step("clone", () => clonePaused(context, machine, snapshot));

    const created_at = clock.now();
    const files = await trace.step("hash", () =>
      storage.finishSnapshot(snapshot, {
        format: 1,
        snapshot_id: snapshot,
        machine_id: id,
        image: machine.image,
        vcpus: machine.vcpus,
        memory_mib: machine.memory_mib,
        consistency: synced ? "synced" : "crash",
        vmm: { name: context.vmms.description.name, version: context.vmms.description.version },
        host_kernel: release(),
        created_at,
      }),
    );
    const record: SnapshotRecord = {
      id: snapshot,
      machine_id: id,
      ...(machine.slot === undefined
        ? {}
        : { source_runtime_host: machine.slot.runtime_host, source_tap_device: machine.slot.tap_device }),
      image: machine.image,
      vcpus: machine.vcpus,
      memory_mib: machine.memory_mib,
      consistency: synced ? "synced" : "crash",
      paused_ms: pausedMs,
      disk_clone: disk.clone,
      ...files,
      created_at,
    };
    await trace.step("done", () =>
      state.commit({ put: "snapshot", record }, { drop: "operation", id: operation.id }),
    );
    return record;
  });
}

/** True when everything the guest wrote is on its disk: it said so, or it went down cleanly. */
async function syncGuest({ guests }: HostContext, machine: MachineRecord): Promise<boolean> {
  if (machine.phase === "stopped") return machine.stopped_cleanly === true;
  if (machine.ready !== "ssh" || machine.slot === undefined || machine.paused === true) return false;
  const guest = {
    host: machine.slot.runtime_host,
    ssh_host_public_key: machine.identity.ssh_host_public_key,
  };
  return await guests.sync(guest, SYNC_TIMEOUT_MS);
}

/** Clones the disk while the guest stands still, and lets it go on unless it stood before. */
async function clonePaused(
  { storage, live }: HostContext,
  machine: MachineRecord,
  snapshot: SnapshotId,
): Promise<{ disk: { clone: "reflink" | "copy" }; pausedMs: number }> {
  const vmm = live.get(machine.id);
  if (vmm === undefined) {
    if (machine.phase === "running")
      throw new AppError("vmm_failed", `the VMM of machine ${machine.id} is gone`);
    return { disk: await storage.stageSnapshot(machine.id, snapshot), pausedMs: 0 };
  }
  const started = performance.now();
  await vmm.pause();
  if (machine.paused === true)
    return { disk: await storage.stageSnapshot(machine.id, snapshot), pausedMs: 0 };
  const disk = await storage.stageSnapshot(machine.id, snapshot);
  await vmm.resume();
  return { disk, pausedMs: Math.round((performance.now() - started) * 10) / 10 };
}
