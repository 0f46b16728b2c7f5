import type { HostItem, Quiet } from "../../model/inventory.ts";
import { parseAddress } from "../addresses.ts";
import { type Claim, readOwnClaim } from "../claim.ts";
import { tableName } from "../host-table.ts";
import type { SlotPlan } from "../plan.ts";
import type { SlotPool } from "../pool.ts";
import { findSlots } from "../sweep.ts";
import { hasDevice, isForwarding } from "../sysctl.ts";
import type { HeldSlot, Slot } from "../types.ts";
import {
  alteredDeviceSysctls,
  holdsLostTap,
  isSameNamespace,
  linksOf,
  routeKey,
  routesHere,
} from "./kernel-view.ts";
import type { Listing } from "./listing.ts";
import { type Interior, interiorProblems } from "./slot-interior.ts";

/** What the room knows of itself, to be compared with what is on the host. */
export interface NetworkFacts {
  readonly plan: SlotPlan;
  readonly pool: SlotPool;
  readonly claim: Claim;
  readonly claimsDir: string;
  readonly egressInterface: string | undefined;
  /** Slots whose way out is open. */
  readonly opened: ReadonlyMap<number, Slot>;
  /** Text of the host's table as it was installed. */
  readonly table: string | undefined;
  /** Text of each slot's table, with its addresses replaced. */
  readonly slotRules: string | undefined;
}

/** The claim, the table without its elements, the pool's route, and forwarding on the way out. */
export function daemonItems(facts: NetworkFacts, listing: Listing | undefined): HostItem[] {
  const { plan, claim, claimsDir, egressInterface, table } = facts;
  const own = readOwnClaim(plan.tag, claimsDir);
  const of = { holder: { of: "daemon" } } as const;
  const items: HostItem[] = [
    {
      resource: "claim",
      name: own.path,
      ...of,
      ...(own.claim === undefined
        ? { status: "missing" }
        : JSON.stringify(own.claim) === JSON.stringify(claim)
          ? { status: "ok" }
          : { status: "altered", detail: "it says something else than this daemon's settings" }),
    },
    {
      resource: "nftables",
      name: `table inet ${tableName(plan)}`,
      ...of,
      ...(listing === undefined
        ? { status: "missing" }
        : table === undefined || listing.text === table
          ? { status: "ok" }
          : { status: "altered", detail: "its rules or sets were changed" }),
    },
    {
      resource: "route",
      name: `unreachable ${claim.cidr}`,
      ...of,
      status: routesHere().has(routeKey("*", plan.pool.base, plan.pool.prefix)) ? "ok" : "missing",
    },
  ];
  if (egressInterface !== undefined && hasDevice(egressInterface)) {
    items.push({
      resource: "sysctl",
      name: `net.ipv4.conf.${egressInterface}.forwarding`,
      ...of,
      ...(isForwarding(egressInterface) ? { status: "ok" } : { status: "altered", detail: "it is not 1" }),
    });
  }
  return items;
}

/** Elements of the set `opened`, as the table has them and as it should. Without a table nothing is said of them. */
export function elementItems({ plan, opened, pool }: NetworkFacts, listing: Listing | undefined): HostItem[] {
  if (listing === undefined) return [];
  const there = new Set(listing.elements);
  const item = (index: number, status: HostItem["status"]): HostItem => ({
    resource: "nftables",
    name: `element ${plan.names(index).host_device} of the set opened`,
    // Of a slot that was given back it goes with the rest.
    holder: pool.moving.has(index) ? { of: "pool" } : { of: "slot", index },
    status,
  });
  const items: HostItem[] = [];
  for (const [index, slot] of opened) {
    const text = JSON.stringify({ concat: [slot.host_device, slot.runtime_host] });
    items.push(item(index, there.delete(text) ? "ok" : "missing"));
  }
  for (const text of there) {
    const { concat: [device] = [] } = JSON.parse(text) as { concat?: readonly unknown[] };
    const index = typeof device === "string" ? plan.indexOf(device) : undefined;
    if (index !== undefined) items.push(item(index, "leaked"));
    else
      items.push({
        resource: "nftables",
        name: `element ${text} of the set opened`,
        holder: { of: "daemon" },
        status: "leaked",
      });
  }
  return items;
}

/** Slots: those that records hold, those of the pool, and whatever else is on the host by their names. Reads nothing but /proc. */
export function slotItems(facts: NetworkFacts, held: readonly HeldSlot[], quiet: Quiet): HostItem[] {
  const { plan, pool, opened } = facts;
  const byIndex = new Map(held.map((slot) => [slot.index, slot]));
  const here = viewFromHere();
  const there = findSlots(plan).map(({ index }) => index);
  const indices = new Set([...there, ...byIndex.keys(), ...pool.ready, ...pool.inUse.keys()]);
  return [...indices].flatMap((index): HostItem[] => {
    const { netns } = plan.names(index);
    const whole = (holder: HostItem["holder"], status: "ok" | "leaked", detail?: string): HostItem[] => [
      { resource: "namespace", name: netns, holder, status, ...(detail === undefined ? {} : { detail }) },
    ];
    const slot = byIndex.get(index);
    if (slot !== undefined) {
      const open: HostItem[] =
        slot.open === true && !opened.has(index)
          ? [
              {
                resource: "nftables",
                name: `element ${plan.names(index).host_device} of the set opened`,
                holder: { of: "slot", index },
                status: "missing",
                detail: "the way out of a running machine is closed",
              },
            ]
          : [];
      return placeItems(plan.slot(index), { of: "slot", index }, here, slot.pid).concat(open);
    }
    if (pool.moving.has(index)) return whole({ of: "pool" }, "ok");
    if (pool.ready.has(index)) return placeItems(plan.slot(index), { of: "pool" }, here);
    const since = pool.inUse.get(index);
    if (since !== undefined && since >= quiet) return whole({ of: "work" }, "ok");
    return whole({ of: "slot", index }, "leaked", "no machine holds this slot");
  });
}

/** The parts of one slot that can be seen from here. */
function placeItems(slot: Slot, holder: HostItem["holder"], here: HereView, pid?: number): HostItem[] {
  const { netns, netns_path, host_device, host_address, tap_device } = slot;
  const items: HostItem[] = [];
  const add = (resource: HostItem["resource"], name: string, wrong?: string): void => {
    items.push({
      resource,
      name,
      holder,
      ...(wrong === undefined
        ? { status: "ok" }
        : wrong === "missing"
          ? { status: "missing" }
          : { status: "altered", detail: wrong }),
    });
  };
  const isThere = isSameNamespace(netns_path, netns_path);
  const links = pid === undefined ? undefined : linksOf(pid);
  if (!isThere) add("namespace", netns, "missing");
  else if (links !== undefined && !isSameNamespace(netns_path, `/proc/${pid}/ns/net`))
    add("namespace", netns, "its name stands for another namespace than the one that the VMM is in");
  else if (isSameNamespace(netns_path, "/proc/self/ns/net"))
    add("namespace", netns, "its name stands for no namespace of its own");
  else add("namespace", netns);

  const address = parseAddress(host_address) ?? 0;
  if (!here.links.has(host_device)) add("link", host_device, "missing");
  else if (!here.routes.has(routeKey(host_device, address, 31)))
    add("link", host_device, `it is down, or does not have the address ${host_address}/31`);
  else add("link", host_device);
  for (const sysctl of alteredDeviceSysctls(slot)) {
    const [name = "", value = ""] = sysctl.split(/ (is .*)/);
    add("sysctl", name, value);
  }
  if (links === undefined || pid === undefined) return items;
  for (const name of ["uplink0", tap_device])
    add("link", `${name} in ${netns}`, links.has(name) ? undefined : "missing");
  if (links.has(tap_device) && holdsLostTap(pid))
    add("link", `${tap_device} of the VMM in ${netns}`, LOST_TAP);
  return items;
}

/** True when nothing of a slot that a record holds is missing or altered, as far as it can be seen from here. `pid`: its VMM. */
export function looksWhole(slot: Slot, pid: number | undefined, here: HereView): boolean {
  return placeItems(slot, { of: "slot", index: slot.index }, here, pid).every(
    ({ status }) => status === "ok",
  );
}

/** Links and routes of this namespace, read once for many slots. */
export function viewFromHere(): HereView {
  return { links: linksOf("self") ?? new Set<string>(), routes: routesHere() };
}

interface HereView {
  readonly links: ReadonlySet<string>;
  readonly routes: ReadonlySet<string>;
}

/** What no repair can change: a VMM opens its tap once. */
export const LOST_TAP =
  "the VMM holds a tap that was deleted, so its guest has no network: stop the machine and start it again";

/** What is wrong inside of slots that were looked into. What `seen` tells already is not told again. */
export function interiorItems(
  { plan, slotRules }: NetworkFacts,
  interiors: ReadonlyMap<number, Interior>,
  held: readonly HeldSlot[],
  seen: readonly HostItem[],
): HostItem[] {
  const known = new Set(seen.map(({ resource, name }) => `${resource} ${name}`));
  const heldIndices = new Set(held.map(({ index }) => index));
  return [...interiors].flatMap(([index, interior]) => {
    const slot = plan.slot(index);
    const holder: HostItem["holder"] = heldIndices.has(index) ? { of: "slot", index } : { of: "pool" };
    const table = `table inet computer-host in ${slot.netns}`;
    const problems = interiorProblems(slot, interior, slotRules).map((problem) =>
      Object.assign(problem, { name: `${problem.name} in ${slot.netns}` }),
    );
    const whole = problems.every(({ resource }) => resource !== "nftables");
    const all = [
      ...problems,
      ...(whole ? [{ resource: "nftables", name: table, status: "ok" } as const] : []),
    ];
    return all
      .filter(({ resource, name, status }) => status !== "missing" || !known.has(`${resource} ${name}`))
      .map((problem): HostItem => Object.assign(problem, { holder }));
  });
}
