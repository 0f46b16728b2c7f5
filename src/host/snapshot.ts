import { AppError } from "../contract/errors.ts";
import { type MachineId, type SnapshotId, snapshotId } from "../contract/ids.ts";
import type { CreateSnapshot } from "../contract/snapshot.ts";
import type { MachineRecord, OperationRecord, SnapshotRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { recordedHardware } from "./hardware.ts";
import { setAsideReason } from "./in-use.ts";
import { operationId } from "./operation-id.ts";
import { holdAsRecorded } from "./pause.ts";
import { manifestOf, type MemoryKind, refuseUnsavable, save, voidMemoryBase } from "./saving.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";

/**
 * POST /machines/{id}/snapshots: disk, and memory where the request says so, of one instant. The guest stands still for
 * as long as the memory is written and the disk is cloned; sealing comes after that, while it goes on. A failure leaves
 * the machine as it was and no snapshot. Throws `AppError`.
 */
export async function snapshotMachine(
  context: HostContext,
  id: MachineId,
  request: CreateSnapshot,
  trace: Trace,
): Promise<SnapshotRecord> {
  const { state, storage, clock } = context;
  const kind = kindOf(request);
  const snapshot = snapshotId(request.snapshot_id);
  using _machine = await context.machineLocks.acquire(id);
  using _snapshot = await context.snapshotLocks.acquire(snapshot);
  const machine = state.state.machines.get(id);
  if (machine === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  refuseTaken(context, snapshot);
  refuseUnsavable(context, machine, kind);
  const operation: OperationRecord = {
    id: operationId("snapshot", snapshot),
    kind: "snapshot",
    machine_id: id,
    snapshot_id: snapshot,
    started_at: clock.now(),
  };
  await settleEarlier(context, operation);
  return await withUndo(trace.log, async (undo) => {
    await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
    // A guest that still stands is let go on by the next start, which the intent tells of it.
    undo.push("intent", async (failed) => {
      if (failed.length === 0) await state.commit({ drop: "operation", id: operation.id });
    });
    undo.push("files", () => storage.removeSnapshot(snapshot));
    const { disk, consistency, paused_ms } = await save(context, machine, snapshot, kind, { undo, trace });

    const created_at = clock.now();
    const draft = manifestOf(context, machine, snapshot, kind, { consistency, created_at });
    const files = await trace.step("seal", () => storage.finishSnapshot(snapshot, draft));
    const record: SnapshotRecord = {
      id: snapshot,
      machine_id: id,
      ...(machine.slot === undefined
        ? {}
        : { source_runtime_host: machine.slot.runtime_host, source_tap_device: machine.slot.tap_device }),
      image: machine.image,
      vcpus: machine.vcpus,
      memory_mib: machine.memory_mib,
      consistency,
      paused_ms,
      disk_clone: disk.clone,
      memory_kind: kind,
      ...files,
      created_at,
    };
    const source = await withNewBase(context, machine, snapshot, kind);
    await trace.step("done", () =>
      state.commit(
        { put: "snapshot", record },
        ...(source === undefined ? [] : [{ put: "machine", record: source } as const]),
        { drop: "operation", id: operation.id },
      ),
    );
    return record;
  });
}

function kindOf({ memory = false }: CreateSnapshot): MemoryKind {
  if (memory === false) return "none";
  return memory === true ? "full" : memory;
}

/** Refuses (`snapshot_exists`) an id that a snapshot has, also one whose record cannot be read. */
function refuseTaken({ state }: HostContext, snapshot: SnapshotId): void {
  if (state.state.snapshots.has(snapshot))
    throw new AppError("snapshot_exists", `a snapshot ${snapshot} exists`);
  const unreadable = setAsideReason(state, "snapshot", snapshot);
  if (unreadable === undefined) return;
  throw new AppError(
    "snapshot_exists",
    `the state has a snapshot ${snapshot} that cannot be read: ${unreadable}`,
  );
}

/**
 * What an earlier try under this id could not undo comes first. One of another machine stays, whose lock is not held and
 * whose intent tells that its memory base is in doubt: throws `snapshot_exists`.
 */
async function settleEarlier(context: HostContext, { id, machine_id }: OperationRecord): Promise<void> {
  const earlier = context.state.state.operations.get(id);
  if (earlier === undefined) return;
  if (earlier.machine_id === machine_id) return await undoSnapshot(context, earlier);
  throw new AppError(
    "snapshot_exists",
    `a failed snapshot ${earlier.snapshot_id} of machine ${earlier.machine_id} is not undone wholly: take it again, or choose another id`,
    { details: { machine_id: earlier.machine_id } },
  );
}

/**
 * Makes the memory that was just sealed the base of the machine's next diff, where it tracks what changes. Returns the
 * record that says so, to be committed together with what tells of the memory.
 */
export async function withNewBase(
  { storage, settings }: HostContext,
  machine: MachineRecord,
  snapshot: SnapshotId,
  kind: MemoryKind,
): Promise<MachineRecord | undefined> {
  if (kind === "none" || !recordedHardware(machine, settings).track_dirty_pages) return undefined;
  await storage.keepMemoryBase(machine.id, snapshot);
  return { ...machine, has_memory_base: true };
}

/** Takes back a snapshot that was cut off: what recovery runs, once running machines were taken over. */
export async function undoSnapshot(context: HostContext, operation: OperationRecord): Promise<void> {
  const { state, storage } = context;
  const { machine_id, snapshot_id } = operation;
  if (machine_id !== undefined) {
    // The guest may still stand; and nobody knows whether its memory was saved, which made its base void.
    await holdAsRecorded(context, machine_id);
    await voidMemoryBase(context, machine_id);
  }
  if (snapshot_id !== undefined && !state.state.snapshots.has(snapshot_id))
    await storage.removeSnapshot(snapshot_id);
  await state.commit({ drop: "operation", id: operation.id });
}
