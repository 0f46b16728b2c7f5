import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord, VmmLimits } from "../model/records.ts";
import type { Slot } from "../network/types.ts";
import type { HostContext } from "./context.ts";
import { giveBackSlot } from "./give-back.ts";
import type { Trace } from "./trace.ts";
import type { UndoStack } from "./undo.ts";

/** What a VMM needs beside the guest's memory, generously: a limit for what runs wild, not a budget. */
const VMM_OVERHEAD_BYTES = 256 * 1024 * 1024;
const MIB = 1024 * 1024;

/** What create, restore, fork and start have at hand on their way up. */
export interface WayUp {
  readonly context: HostContext;
  readonly trace: Trace;
  readonly undo: UndoStack;
  /** Ends the way up; what was done is undone then. */
  readonly signal: AbortSignal;
}

/**
 * Promises memory to a machine that comes up. Throws `host_full`.
 * Memory and slot belong to the record as long as it is there, and it stays when something could not be undone.
 */
export function reserveMemory({ context, undo }: WayUp, id: MachineId, memory_mib: number): void {
  context.admission.reserve(id, memory_mib);
  undo.push("memory", (failed) => {
    if (failed.length === 0) context.admission.release(id);
  });
}

/** A slot for a machine that comes up, the one it asks for where that is free. Throws `host_full`. */
export async function takeSlot({ context, trace, undo, signal }: WayUp, preferred?: number): Promise<Slot> {
  const slot = await trace.step("slot", () => context.network.acquire(signal, preferred));
  undo.push("slot", async (failed) => {
    if (failed.length === 0) await giveBackSlot(context, slot, trace);
  });
  return slot;
}

/** Refuses (`disk_too_small`) a disk smaller than the one it would start from, before anything is touched. */
export function refuseSmallDisk(storage_bytes: number | undefined, minimum_bytes: number): void {
  if (storage_bytes === undefined || storage_bytes >= minimum_bytes) return;
  throw new AppError(
    "disk_too_small",
    `storage_bytes is ${storage_bytes}, but the disk it is made from has ${minimum_bytes} bytes`,
    { details: { storage_bytes, minimum_bytes } },
  );
}

type Size = Pick<MachineRecord, "vcpus" | "memory_mib" | "storage_bytes">;

/**
 * What the record of a machine says of its place, before anything of it exists: the slot, and a jail with a new id and
 * limits that fit its size.
 */
export function placeIn(
  { vmms }: HostContext,
  slot: Slot,
  size: Size,
): Required<Pick<MachineRecord, "slot" | "vmm">> {
  const { name, version } = vmms.description;
  const { index, runtime_host, tap_device, uid, gid } = slot;
  return {
    slot: { index, runtime_host, tap_device },
    vmm: { jail_id: vmms.newJailId(), name, version, uid, gid, limits: limitsOf(size) },
  };
}

/**
 * The limits of a machine of this size. The largest file that a VMM writes is its disk, which may double while it runs,
 * or a snapshot's memory: a limit below either ends it in the middle of a write.
 */
export function limitsOf({ vcpus, memory_mib, storage_bytes }: Size): VmmLimits {
  return {
    no_file: 4096,
    fsize_bytes: Math.max(2 * storage_bytes, memory_mib * MIB) + VMM_OVERHEAD_BYTES,
    memory_bytes: memory_mib * MIB + VMM_OVERHEAD_BYTES,
    cpus: vcpus,
    pids: 128,
  };
}
