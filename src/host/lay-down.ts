import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { giveBack } from "./give-back.ts";
import type { Trace } from "./trace.ts";

/** What the record of a machine that no longer runs says of its end. */
export type LaidDown = Pick<
  MachineRecord,
  "phase" | "error" | "stopped_at" | "stopped_cleanly" | "last_slot" | "ended" | "restarts"
>;

/**
 * Takes a machine off the host: its jail with all that runs there and then, once no record names them any more, its
 * memory and slot. Its disk stays, and its record says `how`. Ends `operation`. Only goes forward: what fails can be
 * tried again. The caller holds the machine's lock.
 */
export async function layDown(
  context: HostContext,
  record: MachineRecord,
  how: LaidDown,
  trace: Trace,
  operation?: OperationRecord,
): Promise<MachineRecord> {
  const { state, network, storage, vmms } = context;
  const { slot, vmm, error: _error, paused: _paused, has_memory_base: _base, ...kept } = record;
  const place = slot === undefined ? undefined : network.slot(slot.index);
  if (place !== undefined && vmm !== undefined)
    await trace.step("jail", () => vmms.release({ ...vmm, netns_path: place.netns_path }));
  await storage.takeBack(record.id);
  // Only a VMM that goes on can tell what changed since.
  await storage.dropMemoryBase(record.id);
  const after: MachineRecord = { ...kept, ...(slot === undefined ? {} : { last_slot: slot.index }), ...how };
  const ended = operation === undefined ? [] : [{ drop: "operation", id: operation.id } as const];
  await trace.step("done", () => state.commit({ put: "machine", record: after }, ...ended));
  await giveBack(context, record.id, place, trace);
  return after;
}
