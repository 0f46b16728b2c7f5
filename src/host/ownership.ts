import { isId, machineId, snapshotId } from "../contract/ids.ts";
import type { Holder } from "../model/inventory.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { inUse } from "./in-use.ts";

/** Who owns a thing at this moment, in a few words, and whether an operation that is under way may be working on it. */
export interface Owner {
  /** Undefined: nobody. */
  readonly name: string | undefined;
  /** The machine or snapshot behind it. */
  readonly machine?: MachineRecord;
  readonly isBusy: boolean;
}

const NOBODY: Owner = { name: undefined, isBusy: false };

/** Answers whose a thing is. Made anew for each look: it holds what the state says at that moment. */
export function ownersNow({ state, machineLocks, snapshotLocks }: HostContext): (holder: Holder) => Owner {
  const { machines, snapshots, operations } = state.state;
  const owned = inUse(state);
  const bySlot = new Map<number, MachineRecord>();
  const byJail = new Map<string, MachineRecord>();
  for (const record of machines.values()) {
    if (record.slot !== undefined) bySlot.set(record.slot.index, record);
    if (record.vmm !== undefined) byJail.set(record.vmm.jail_id, record);
  }
  const ofMachine = new Map<string, OperationRecord>();
  const ofSnapshot = new Map<string, OperationRecord>();
  for (const operation of operations.values()) {
    const { machine_id, snapshot_id, children = [] } = operation;
    for (const id of [machine_id, ...children]) if (id !== undefined) ofMachine.set(id, operation);
    if (snapshot_id !== undefined) ofSnapshot.set(snapshot_id, operation);
  }
  const machine = (id: string, record = machines.get(machineId(id))): Owner => {
    const operation = ofMachine.get(id);
    const isBusy = operation !== undefined || machineLocks.isHeld(id);
    if (operation !== undefined) return { name: `operation ${operation.id}`, ...found(record), isBusy };
    if (record === undefined && !owned.machines.has(id)) return { ...NOBODY, isBusy };
    return { name: `machine ${id}`, ...found(record), isBusy };
  };
  return (holder) => {
    switch (holder.of) {
      case "machine":
        return isId(holder.id) ? machine(holder.id) : NOBODY;
      case "slot": {
        const record = bySlot.get(holder.index);
        if (record !== undefined) return machine(record.id, record);
        return owned.slots.includes(holder.index) ? { name: SET_ASIDE, isBusy: false } : NOBODY;
      }
      case "jail": {
        const record = byJail.get(holder.id);
        if (record !== undefined) return machine(record.id, record);
        return owned.jails.has(holder.id) ? { name: SET_ASIDE, isBusy: false } : NOBODY;
      }
      case "snapshot": {
        if (!isId(holder.id)) return NOBODY;
        const operation = ofSnapshot.get(holder.id);
        const isBusy = operation !== undefined || snapshotLocks.isHeld(holder.id);
        if (operation !== undefined) return { name: `operation ${operation.id}`, isBusy };
        const isKnown = snapshots.has(snapshotId(holder.id)) || owned.snapshots.has(holder.id);
        return { name: isKnown ? `snapshot ${holder.id}` : undefined, isBusy };
      }
      case "pool":
        return { name: "pool", isBusy: false };
      case "work":
        return { name: "operation under way", isBusy: false };
      case "daemon":
        return { name: "daemon", isBusy: false };
    }
  };
}

const SET_ASIDE = "a record that cannot be read";

function found(record: MachineRecord | undefined): { machine?: MachineRecord } {
  return record === undefined ? {} : { machine: record };
}
