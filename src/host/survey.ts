import type { Audit, AuditItem } from "../contract/audit.ts";
import type { ArtifactKind } from "../contract/snapshot.ts";
import type { HostItem, Quiet } from "../model/inventory.ts";
import type { MachineRecord, SnapshotRecord } from "../model/records.ts";
import type { HeldSlot } from "../network/types.ts";
import type { KnownFiles } from "../storage/types.ts";
import { isAlive } from "../system/process.ts";
import type { KnownVmm } from "../vmm/types.ts";
import { problemOf } from "./abandoned.ts";
import type { HostContext } from "./context.ts";
import { inUse } from "./in-use.ts";
import { type Owner, ownersNow } from "./ownership.ts";

/** What the state says should be on the host, in the words of the rooms. */
export interface Known {
  readonly slots: readonly HeldSlot[];
  readonly vmms: readonly KnownVmm[];
  readonly files: KnownFiles;
  /** Of slots: while anything is under way, one may be on its way back. */
  readonly quietSlots: Quiet;
  readonly quiet: Quiet;
}

/** One thing that the rooms found, with who owns it. */
export interface Surveyed {
  readonly item: HostItem;
  readonly owner: Owner;
}

/** What the state says at this moment. */
export function knownNow({ state, network, underWay }: HostContext): Known {
  const { machines, snapshots, operations } = state.state;
  const odd = inUse(state);
  const records = [...machines.values()];
  const slots = new Map<number, HeldSlot>(odd.slots.map((index) => [index, { index }]));
  for (const { slot, vmm, phase } of records) {
    if (slot === undefined) continue;
    const { process } = vmm ?? {};
    const pid = process !== undefined && isAlive(process) ? { pid: process.pid } : {};
    slots.set(slot.index, {
      index: slot.index,
      ...pid,
      ...(phase === "running" ? { open: true } : {}),
    });
  }
  const vmms = new Map<string, KnownVmm>(
    [...odd.jails].map((jail_id) => [jail_id, { jail_id, uid: -1, gid: -1, netns_path: "" }]),
  );
  for (const { slot, vmm } of records) {
    if (vmm === undefined) continue;
    const netns_path = slot === undefined ? "" : network.slot(slot.index).netns_path;
    vmms.set(vmm.jail_id, { ...vmm, netns_path });
  }
  const named = [...operations.values()].flatMap(({ snapshot_id }) => snapshot_id ?? []);
  return {
    slots: [...slots.values()],
    vmms: [...vmms.values()],
    files: {
      machines: new Map([
        ...[...odd.machines].map((id) => [id, { whole: false, uid: 0 }] as const),
        ...records.map((record) => [record.id as string, filesOf(record)] as const),
      ]),
      snapshots: new Map<string, readonly ArtifactKind[]>([
        ...[...odd.snapshots, ...named].map((id) => [id, []] as const),
        ...[...snapshots.values()].map((record) => [record.id as string, kindsOf(record)] as const),
      ]),
    },
    quietSlots: underWay.isIdle ? underWay.quiet : 0,
    quiet: underWay.quiet,
  };
}

function filesOf({ phase, vmm }: MachineRecord): { whole: boolean; uid: number } {
  if (phase === "running") return { whole: true, uid: vmm?.uid ?? 0 };
  // One that comes up, or could neither come up nor be undone, has whatever it got to.
  return { whole: vmm === undefined, uid: 0 };
}

function kindsOf({ memory, vmstate }: SnapshotRecord): ArtifactKind[] {
  return [
    "disk",
    "manifest",
    ...(memory === undefined ? [] : (["memory"] as const)),
    ...(vmstate === undefined ? [] : (["vmstate"] as const)),
  ];
}

/**
 * Looks at everything on the host that is ours or should be there, and says whose it is. What an operation works on that
 * is under way, or was at the beginning of the look, is taken to be right. `look`: into how many slots from inside.
 */
export async function survey(context: HostContext, look: "some" | "all"): Promise<Surveyed[]> {
  const { network, storage, vmms, auditors } = context;
  const ownerBefore = ownersNow(context);
  const known = knownNow(context);
  const found = await Promise.all([
    Promise.resolve(auditors.flatMap((auditor) => auditor.inventory())),
    network.inventory(known.slots, known.quietSlots, look),
    vmms.inventory(known.vmms),
    storage.inventory(known.files, known.quiet),
  ]);
  const ownerNow = ownersNow(context);
  return found.flat().flatMap((item): Surveyed[] => {
    const [before, owner] = [ownerBefore(item.holder), ownerNow(item.holder)];
    if (item.status === "ok") return [{ item, owner }];
    // Whatever changed hands, or was being worked on, while it was looked at was seen in the middle of that.
    const hasChanged = before.name !== owner.name || before.machine !== owner.machine;
    if (!hasChanged && !before.isBusy && !owner.isBusy) return [{ item, owner }];
    const { detail: _detail, ...rest } = item;
    return item.status === "missing" || owner.name === undefined
      ? []
      : [{ item: { ...rest, status: "ok" }, owner }];
  });
}

/** GET /audit: every thing on the host that is the daemon's, with its owner. */
export async function audit(context: HostContext): Promise<Audit> {
  const found = await survey(context, "all");
  const items = [...found.map(present), ...operationItems(context)].sort(
    (a, b) => order(a.resource, b.resource) || order(a.name, b.name),
  );
  return { items, clean: items.every(({ status }) => status === "ok") };
}

function present({ item, owner }: Surveyed): AuditItem {
  const { resource, name, status, detail } = item;
  return {
    resource,
    name,
    ...(owner.name === undefined || status === "leaked" ? {} : { owner: owner.name }),
    status,
    ...(detail === undefined ? {} : { detail }),
  };
}

/** Operations that are in the state: under way, or left by a failure and tried again. */
function operationItems(context: HostContext): AuditItem[] {
  return [...context.state.state.operations.values()].map((operation) => {
    const { id } = operation;
    const detail = problemOf(context, operation);
    const item: AuditItem = { resource: "operation", name: id, owner: `operation ${id}`, status: "ok" };
    return detail === undefined ? item : Object.assign(item, { status: "altered", detail });
  });
}

function order(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
