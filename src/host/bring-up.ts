import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { GuestConfig, Ready } from "../contract/machine.ts";
import type { ImageRef, MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { operationId } from "./operation-id.ts";
import { placeIn, reserveMemory, runGuest, takeSlot } from "./run-guest.ts";
import type { Trace } from "./trace.ts";
import { withUndo } from "./undo.ts";

/** A machine that is wanted, with everything decided but nothing done. */
export interface MachinePlan {
  readonly operation: "create" | "restore";
  readonly id: MachineId;
  readonly request_sha256: string;
  readonly image: ImageRef;
  /** Whose disk it starts from; without it, the image's. */
  readonly snapshot_id?: SnapshotId;
  readonly vcpus: number;
  readonly memory_mib: number;
  readonly storage_bytes: number | undefined;
  readonly ready: Ready;
  readonly guest_config: GuestConfig;
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
  const { state, network, storage, guests, clock } = context;
  const { id, snapshot_id } = plan;
  return await withUndo(trace.log, async (undo) => {
    const way = { context, trace, undo, signal };
    const operation: OperationRecord = {
      id: operationId(plan.operation, id),
      kind: plan.operation,
      machine_id: id,
      started_at: clock.now(),
    };
    reserveMemory(way, id, plan.memory_mib);
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

    const record = {
      id,
      phase: "starting" as const,
      request_sha256: plan.request_sha256,
      image: plan.image,
      ...(snapshot_id === undefined ? {} : { snapshot_id }),
      vcpus: plan.vcpus,
      memory_mib: plan.memory_mib,
      storage_bytes: plan.storage_bytes ?? plan.image.rootfs_size_bytes,
      ready: plan.ready,
      disk_clone: storage.cloneMode,
      identity: {
        hostname,
        guest_machine_id: identity.guest_machine_id,
        ssh_host_public_key: identity.ssh_host_public_key,
        seed_sha256: identity.seed_sha256,
      },
      ...placeIn(context, slot),
      created_at: clock.now(),
    };
    await trace.step("intent", () =>
      state.commit({ put: "operation", record: operation }, { put: "machine", record }),
    );
    // Knows whether everything after it could be undone.
    undo.push("record", async (failed) => {
      if (failed.length === 0) {
        await state.commit({ drop: "machine", id }, { drop: "operation", id: operation.id });
        return;
      }
      // The intent stays: the next start, or a delete, takes up what could not be undone now.
      const error = `a failed ${plan.operation} could not be undone wholly: ${failed.join(", ")}`;
      const latest = state.state.machines.get(id) ?? record;
      await state.commit({ put: "machine", record: { ...latest, phase: "failed", error } });
    });

    await storage.makeMachine(id);
    undo.push("files", () => storage.removeMachine(id));
    const disk = await trace.step("disk", () =>
      snapshot_id === undefined
        ? storage.cloneImageDisk(plan.image, id, plan.storage_bytes)
        : storage.cloneSnapshotDisk(snapshot_id, id, plan.storage_bytes),
    );
    await trace.step("seed", () => storage.writeSeed(id, identity.seed));

    const planned = { ...record, storage_bytes: disk.size_bytes, disk_clone: disk.clone };
    return await runGuest(way, planned, slot, operation);
  });
}
