import { messageOf } from "../contract/errors.ts";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { GuestConfig, Ready, Restart } from "../contract/machine.ts";
import type { GuestIdentity } from "../guest/types.ts";
import type { Manifest } from "../model/manifest.ts";
import type { HardwareRecord, ImageRef, MachineRecord, OperationRecord } from "../model/records.ts";
import type { Slot } from "../network/types.ts";
import type { HostContext } from "./context.ts";
import { operationId } from "./operation-id.ts";
import { announce, type Risen, runGuest } from "./run-guest.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";
import { limitsOf, placeIn, reserveMemory, takeSlot, type WayUp } from "./way-up.ts";

/** A machine that is wanted, with everything decided but nothing done. */
export interface MachinePlan {
  readonly operation: "create" | "restore" | "fork";
  readonly id: MachineId;
  readonly request_sha256: string;
  readonly image: ImageRef;
  /** Whose disk it starts from; without it, the image's. */
  readonly snapshot_id?: SnapshotId;
  /** The snapshot's manifest, when it goes on where that stood instead of booting. */
  readonly frozen?: Manifest;
  readonly vcpus: number;
  readonly memory_mib: number;
  readonly storage_bytes: number | undefined;
  readonly ready: Ready;
  readonly guest_config: GuestConfig;
  readonly hardware: HardwareRecord;
  readonly restart?: Restart | undefined;
}

/** A machine that has memory, an identity and a place, and nothing on the disk yet. */
export interface Prepared {
  readonly plan: MachinePlan;
  readonly record: MachineRecord & Required<Pick<MachineRecord, "vmm">>;
  readonly slot: Slot;
  readonly identity: GuestIdentity;
}

/**
 * Brings a new machine up: memory, identity, place, disk, and then what every machine does that comes up. The steps
 * stand in their order, each with its undo beside it; when one fails, or `signal` ends it, everything before it is undone.
 * Returns the record of the running machine. Throws `AppError`.
 */
export async function bringUp(
  context: HostContext,
  plan: MachinePlan,
  trace: Trace,
  signal: AbortSignal,
): Promise<MachineRecord> {
  return await withUndo(trace.log, async (undo) => {
    const way = { context, trace, undo, signal };
    const operation: OperationRecord = {
      id: operationId(plan.operation, plan.id),
      kind: plan.operation,
      machine_id: plan.id,
      started_at: context.clock.now(),
    };
    const prepared = await prepare(way, plan);
    await trace.step("intent", () =>
      context.state.commit(
        { put: "operation", record: operation },
        { put: "machine", record: prepared.record },
      ),
    );
    // Knows whether everything after it could be undone.
    undo.push("record", (failed, cause) => undoRecord(context, prepared, operation, { failed, cause }));
    const risen = await raise(way, prepared);
    await announce(context, [risen], operation, trace);
    return risen.record;
  });
}

/** What a machine needs before its intent is written down: memory, an identity, a slot. Throws `host_full`, `bad_request`. */
export async function prepare(way: WayUp, plan: MachinePlan): Promise<Prepared> {
  const { context, trace } = way;
  const { guests, network, storage, clock } = context;
  const { id, snapshot_id, memory_mib, vcpus } = plan;
  reserveMemory(way, id, memory_mib);
  const hostname = plan.guest_config.hostname ?? id;
  const identity = await trace.step("identity", () =>
    guests.makeIdentity({
      hostname,
      default_user: plan.image.default_user,
      guest_config: plan.guest_config,
      resolvers: network.resolvers,
    }),
  );
  const slot = await takeSlot(way);
  const storage_bytes = plan.storage_bytes ?? plan.image.rootfs_size_bytes;
  const record = {
    id,
    phase: "starting" as const,
    request_sha256: plan.request_sha256,
    image: plan.image,
    // The snapshot of a fork is nobody's to name: it goes with the fork.
    ...(snapshot_id === undefined || plan.operation === "fork" ? {} : { snapshot_id }),
    vcpus,
    memory_mib,
    storage_bytes,
    ready: plan.ready,
    disk_clone: storage.cloneMode,
    hardware: plan.hardware,
    ...(plan.restart === undefined || plan.restart === "never" ? {} : { restart: plan.restart }),
    identity: {
      hostname,
      guest_machine_id: identity.guest_machine_id,
      ssh_host_public_key: identity.ssh_host_public_key,
      seed_sha256: identity.seed_sha256,
      own_login_key: true,
    },
    ...placeIn(context, slot, { vcpus, memory_mib, storage_bytes }),
    created_at: clock.now(),
  };
  return { plan, record, slot, identity };
}

/**
 * Takes back the record of a machine whose way up failed, unless what it names could not be undone, and with it the
 * `operation`; without one, that is somebody else's, which ends it.
 */
export async function undoRecord(
  { state }: HostContext,
  { record, plan }: Prepared,
  operation: OperationRecord | undefined,
  { failed, cause }: { readonly failed: readonly string[]; readonly cause: unknown },
): Promise<void> {
  const { id } = record;
  if (failed.length === 0) {
    const ended = operation === undefined ? [] : [{ drop: "operation", id: operation.id } as const];
    await state.commit({ drop: "machine", id }, ...ended);
    return;
  }
  // The intent stays: it is taken up again, soon and by the next start, or by a delete.
  const error = `the ${plan.operation} failed (${messageOf(cause)}) and could not be undone wholly yet: ${failed.join(", ")}`;
  const latest = state.state.machines.get(id) ?? record;
  await state.commit({ put: "machine", record: { ...latest, phase: "failed", error } });
}

/** From the intent to a guest that is ready: folder, disk, seed, and what every machine does that comes up. */
export async function raise(way: WayUp, { plan, record, slot, identity }: Prepared): Promise<Risen> {
  const { context, trace, undo } = way;
  const { storage } = context;
  const { id, snapshot_id } = plan;
  await storage.makeMachine(id);
  undo.push("files", () => storage.removeMachine(id));
  const disk = await trace.step("disk", () =>
    snapshot_id === undefined
      ? storage.cloneImageDisk(plan.image, id, plan.storage_bytes)
      : storage.cloneSnapshotDisk(snapshot_id, id, plan.storage_bytes),
  );
  await trace.step("seed", () => storage.writeSeed(id, identity.seed));
  const { hostname } = record.identity;
  const seed = { bytes: identity.seed, sha256: identity.seed_sha256, hostname };
  const sized = { ...record, storage_bytes: disk.size_bytes, disk_clone: disk.clone };
  return await runGuest(way, {
    machine: { ...sized, vmm: { ...record.vmm, limits: limitsOf(sized) } },
    slot,
    hardware: plan.hardware,
    metadata: identity.metadata,
    ...(plan.frozen === undefined || snapshot_id === undefined
      ? {}
      : { frozen: { snapshot: snapshot_id, manifest: plan.frozen, seed } }),
  });
}
