import type { Repair } from "../contract/audit.ts";
import { messageOf } from "../contract/errors.ts";
import type { HostItem, Mended } from "../model/inventory.ts";
import type { MachineRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { inUse } from "./in-use.ts";
import { CONSOLE_TAIL_BYTES } from "./how-it-ended.ts";
import { layDown } from "./lay-down.ts";
import { ownersNow } from "./ownership.ts";
import { audit, knownNow, type Surveyed, survey } from "./survey.ts";
import { Trace } from "./trace.ts";
import { recordDeath } from "./vmm-death.ts";

/** POST /audit/repair: mends what is not as it should be, and tells what is there afterwards. */
export async function repairAll(context: HostContext): Promise<Repair> {
  const repaired = await repair(context, "all");
  return { repaired, audit: await audit(context) };
}

/**
 * Mends what is not as it should be: removes leaks, makes anew what is missing around guests that run, and marks machines
 * as failed whose VMM or disk is gone. Never touches what an operation under way owns, nor what is right. One repair at a
 * time. Returns what was done; what could not be mended says why.
 */
export async function repair(context: HostContext, look: "some" | "all"): Promise<Mended[]> {
  using _turn = await context.repairs.acquire("repair");
  const wrong = (await survey(context, look)).filter(({ item }) => item.status !== "ok");
  if (wrong.length === 0) return [];
  const machines = Map.groupBy(
    wrong.filter(({ owner }) => owner.machine !== undefined),
    ({ owner }) => owner.machine,
  );
  const rest = wrong.filter(({ owner }) => owner.machine === undefined).map(({ item }) => item);
  const results = await mendByRooms(context, rest);
  for (const [record, found] of machines)
    if (record !== undefined) results.push(...(await mendMachine(context, record, found)));
  return results;
}

/** What belongs to no machine: the daemon's own, the pool's, and leaks. */
async function mendByRooms(context: HostContext, items: readonly HostItem[]): Promise<Mended[]> {
  const { complete } = inUse(context.state);
  const isLeak = ({ status, holder }: HostItem): boolean =>
    status === "leaked" && holder.of !== "work" && holder.of !== "daemon";
  const results: Mended[] = [];
  const others = items.filter((item) => !isLeak(item));
  results.push(...(await byRoom(context, others)));
  for (const item of items.filter(isLeak)) {
    if (complete) {
      results.push(...(await removeLeak(context, item)));
      continue;
    }
    const { resource, name } = item;
    const reason = "a record of the state that cannot be read may own it";
    results.push({ resource, name, action: "left as it is", ok: false, reason });
  }
  return results;
}

/** Removes something that nobody owns, if that is still so once nobody can begin to. */
async function removeLeak(context: HostContext, item: HostItem): Promise<Mended[]> {
  const { machineLocks, snapshotLocks } = context;
  const { holder } = item;
  const owner = ownersNow(context)(holder);
  if (owner.isBusy || owner.name !== undefined) return [];
  // Asked for in the same step as it was looked at: nobody is in between.
  using lock = new DisposableStack();
  if (holder.of === "machine") lock.use(await machineLocks.acquire(holder.id));
  if (holder.of === "snapshot") lock.use(await snapshotLocks.acquire(holder.id));
  return await byRoom(context, [item]);
}

async function byRoom(context: HostContext, items: readonly HostItem[]): Promise<Mended[]> {
  const { network, vmms, storage, auditors } = context;
  if (items.length === 0) return [];
  const known = knownNow(context);
  const of = (resources: ReadonlySet<string>): HostItem[] =>
    items.filter(({ resource }) => resources.has(resource));
  const results = await Promise.all([
    network.mend(of(NETWORK), known.slots, known.quietSlots),
    vmms.mend(of(VMM), known.vmms),
    storage.mend(of(STORAGE), known.files, known.quiet),
    ...auditors.map((auditor) => auditor.mend(items)),
  ]);
  return results.flat();
}

const NETWORK = new Set(["namespace", "link", "route", "nftables", "sysctl", "claim"]);
const VMM = new Set(["jail", "process", "cgroup"]);
const STORAGE = new Set(["folder", "file"]);

/** Mends what belongs to a machine, unless an operation works on it or has since it was looked at. */
async function mendMachine(
  context: HostContext,
  record: MachineRecord,
  found: readonly Surveyed[],
): Promise<Mended[]> {
  const { machineLocks, state } = context;
  const { id } = record;
  const isSame = (): boolean => state.state.machines.get(id) === record;
  if (ownersNow(context)({ of: "machine", id }).isBusy || !isSame()) return [];
  using _lock = await machineLocks.acquire(id);
  if (!isSame()) return [];
  using _work = context.underWay.enter();
  const items = found.map(({ item }) => item);
  const gone = items.find(({ resource, status }) => resource === "process" && status === "missing");
  const lostDisk = items.find(
    ({ resource, name, status }) => resource === "file" && status === "missing" && name.endsWith("/disk.img"),
  );
  if (lostDisk !== undefined && record.phase !== "failed")
    return [await markFailed(context, record, lostDisk, `its disk is gone: there is no ${lostDisk.name}`)];
  if (gone !== undefined && record.phase === "running")
    return [
      await settled(gone, "recorded the end of the VMM", async () => {
        await recordDeath(context, record);
      }),
    ];
  return await byRoom(context, items);
}

async function markFailed(
  context: HostContext,
  record: MachineRecord,
  item: HostItem,
  error: string,
): Promise<Mended> {
  return await settled(item, `marked machine ${record.id} as failed`, async () => {
    const { clock, log, storage } = context;
    const at = clock.now();
    const console_tail = await storage.tail(storage.machineFiles(record.id).console, CONSOLE_TAIL_BYTES);
    const ended = { at, how: "disk_gone", console_tail } as const;
    const { restarts: _restarts, ...rest } = record;
    await layDown(
      context,
      rest,
      { phase: "failed", error, stopped_at: record.stopped_at ?? at, ended },
      new Trace(log),
    );
  });
}

async function settled(
  { resource, name }: HostItem,
  action: string,
  work: () => Promise<void>,
): Promise<Mended> {
  try {
    await work();
    return { resource, name, action, ok: true };
  } catch (error) {
    return { resource, name, action, ok: false, reason: messageOf(error) };
  }
}
