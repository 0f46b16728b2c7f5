import { messageOf } from "../../contract/errors.ts";
import type { HostItem, Mended, Quiet } from "../../model/inventory.ts";
import { run } from "../../system/run.ts";
import { isNamespace, makeSlot } from "../making.ts";
import type { HeldSlot, Slot } from "../types.ts";
import { LOST_TAP } from "./inventory.ts";
import { isSameNamespace, linksOf } from "./kernel-view.ts";

/** What mending needs of the room. */
export interface NetworkMeans {
  slot(index: number): Slot;
  putClaimBack(): Promise<void>;
  /** Replaces the table by what it should be, in one transaction: also its elements. */
  putTableBack(): Promise<void>;
  putRouteBack(): Promise<void>;
  setForwarding(): void;
  openEgress(slot: Slot): Promise<void>;
  /** Removes a slot that no record holds and nobody works on; looks again whether that is so. */
  removeSlot(index: number, quiet: Quiet): Promise<void>;
  /** Another one in place of a slot that waits. */
  replaceReady(index: number): Promise<void>;
  indexOf(name: string): number | undefined;
}

/** Mends items one after another, each way of mending once for all that it mends. */
export async function mendNetwork(
  means: NetworkMeans,
  items: readonly HostItem[],
  held: readonly HeldSlot[],
  quiet: Quiet,
): Promise<Mended[]> {
  const results: Mended[] = [];
  const done = new Map<string, { ok: boolean; reason?: string }>();
  for (const item of items.toSorted((a, b) => urgency(a) - urgency(b))) {
    const way = wayOf(means, item, held, quiet);
    const { resource, name } = item;
    if (way === undefined) {
      results.push({
        resource,
        name,
        action: "left as it is",
        ok: false,
        reason: item.detail ?? "nothing mends it",
      });
      continue;
    }
    const outcome = done.get(way.key) ?? (await attempt(way.mend));
    done.set(way.key, outcome);
    results.push({ resource, name, action: way.action, ...outcome });
  }
  return results;
}

async function attempt(mend: () => Promise<void> | void): Promise<{ ok: boolean; reason?: string }> {
  try {
    await mend();
    return { ok: true };
  } catch (error) {
    return { ok: false, reason: messageOf(error) };
  }
}

/** The table first: while it is gone, guests are not held to its rules. */
function urgency({ holder, resource }: HostItem): number {
  if (holder.of !== "daemon") return 2;
  return resource === "nftables" ? 0 : 1;
}

interface Way {
  /** Items with the same key are mended by one and the same deed. */
  readonly key: string;
  readonly action: string;
  readonly mend: () => Promise<void> | void;
}

function wayOf(
  means: NetworkMeans,
  { resource, name, holder, status, detail }: HostItem,
  held: readonly HeldSlot[],
  quiet: Quiet,
): Way | undefined {
  if (detail === LOST_TAP) return undefined;
  if (holder.of === "daemon") {
    if (resource === "nftables")
      return { key: "table", action: "installed the table anew", mend: () => means.putTableBack() };
    if (resource === "claim")
      return { key: "claim", action: "wrote the claim anew", mend: () => means.putClaimBack() };
    if (resource === "route")
      return { key: "route", action: "added the route", mend: () => means.putRouteBack() };
    if (resource === "sysctl")
      return { key: "sysctl", action: "set the sysctl", mend: () => means.setForwarding() };
    return undefined;
  }
  if (holder.of === "pool") {
    const index = indexIn(means, name);
    if (index === undefined) return undefined;
    const mend = (): Promise<void> => means.replaceReady(index);
    return { key: `ready ${index}`, action: "replaced the ready-made slot", mend };
  }
  if (holder.of !== "slot") return undefined;
  const { index } = holder;
  const record = held.find((slot) => slot.index === index);
  if (resource === "nftables" && name.startsWith("element "))
    return status === "missing" && record?.open === true
      ? {
          key: `open ${index}`,
          action: "opened the way out",
          mend: () => means.openEgress(means.slot(index)),
        }
      : { key: "table", action: "installed the table anew", mend: () => means.putTableBack() };
  if (record !== undefined)
    return {
      key: `slot ${index}`,
      action: "made what is missing of the slot",
      mend: () => mendSlot(means.slot(index), record.pid),
    };
  if (status !== "leaked") return undefined;
  return { key: `leak ${index}`, action: "removed the slot", mend: () => means.removeSlot(index, quiet) };
}

/** The number of the slot that a name ends with or holds. */
function indexIn(means: NetworkMeans, name: string): number | undefined {
  return name
    .split(/[\s.]/)
    .map((word) => means.indexOf(word))
    .find((index) => index !== undefined);
}

/**
 * Makes what is missing of a slot that a record holds, around the process that lives there: where its namespace lost its
 * name it gets it back, and a veth pair that leads elsewhere is replaced.
 */
export async function mendSlot(slot: Slot, pid: number | undefined): Promise<void> {
  const { netns, netns_path, host_device } = slot;
  const inside = pid === undefined ? undefined : linksOf(pid);
  if (pid !== undefined && inside !== undefined) {
    const batch: string[] = [];
    const isNamed = isSameNamespace(netns_path, `/proc/${pid}/ns/net`);
    const leadsElsewhere = !inside.has("uplink0") && linksOf("self")?.has(host_device) === true;
    if (leadsElsewhere) batch.push(`link del ${host_device}`);
    if (!isNamed) {
      if (isSameNamespace(netns_path, netns_path)) batch.push(`netns del ${netns}`);
      batch.push(`netns attach ${netns} ${pid}`);
    }
    if (batch.length > 0) await run(["ip", "-batch", "-"], { input: `${batch.join("\n")}\n` });
  } else if (isNamespace(netns_path) && isSameNamespace(netns_path, "/proc/self/ns/net")) {
    await run(["ip", "netns", "del", netns]);
  }
  await makeSlot(slot);
}
