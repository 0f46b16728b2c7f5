import { run } from "../system/run.ts";
import { type Cidr, formatCidr, parseCidr, withoutContained } from "./addresses.ts";
import type { SlotPlan } from "./plan.ts";
import type { Slot } from "./types.ts";

/**
 * Where guests may not go, whatever the way out: this host's networks, private ranges (RFC 1918, RFC 6598),
 * link-local with the clouds' metadata services, and the two of these that hide in public-looking ranges.
 */
export const DENIED_RANGES = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "168.63.129.16/32",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.168.0.0/16",
  "224.0.0.0/4",
  "240.0.0.0/4",
] as const;

/** What the fixed rules work on. */
export interface TableContent {
  /** Undefined: guests have no way out. */
  readonly egressInterface: string | undefined;
  readonly egressAllow: readonly Cidr[];
  readonly resolvers: readonly string[];
  /** Slots whose way out is open. */
  readonly opened: readonly Slot[];
}

/** The set of the slots whose way out is open. */
export const OPENED_SET = "opened";

/** Our one table on the host. */
export function tableName(plan: SlotPlan): string {
  return `computer-host-${plan.tag}`;
}

/**
 * The host's whole table as one transaction that replaces an earlier one without a gap.
 *
 * The rules are the same for one machine and for thousands; sets carry what changes. Every packet of a slot, also of
 * an established connection, must find its slot in `opened`: taking the element out cuts all that flows at once,
 * with no walk through the kernel's table of connections. Chains accept what is not ours: other tables decide on it.
 */
export function hostTable(plan: SlotPlan, content: TableContent): string {
  const name = tableName(plan);
  const slots = `"${plan.devicePrefix}*"`;
  const denied = withoutContained([...DENIED_RANGES.flatMap((range) => parseCidr(range) ?? []), plan.pool]);
  return `add table inet ${name}
delete table inet ${name}
table inet ${name} {
  set opened {
    type ifname . ipv4_addr
    ${elements(content.opened.map(element))}
  }
  set egress {
    type ifname
    ${elements(content.egressInterface === undefined ? [] : [`"${content.egressInterface}"`])}
  }
  set resolvers {
    type ipv4_addr
    ${elements(content.resolvers)}
  }
  set allowed {
    type ipv4_addr
    flags interval
    ${elements(withoutContained(content.egressAllow).map(formatCidr))}
  }
  set denied {
    type ipv4_addr
    flags interval
    ${elements(denied.map(formatCidr))}
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname ${slots} goto from_slot
    oifname ${slots} goto to_slot
  }
  chain from_slot {
    meta nfproto != ipv4 drop
    iifname . ip saddr != @opened drop
    ct state invalid drop
    oifname != @egress drop
    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    ip daddr @resolvers udp dport 53 accept
    ip daddr @resolvers tcp dport 53 accept
    ip daddr @allowed accept
    ip daddr @denied drop
    accept
  }
  chain to_slot {
    meta nfproto != ipv4 drop
    oifname . ip daddr != @opened drop
    iifname != @egress drop
    ct state established,related accept
    drop
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname ${slots} goto slot_to_host
  }
  chain slot_to_host {
    meta nfproto != ipv4 drop
    ct direction reply ct state established accept
    ct state related icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
    iifname . ip saddr != @opened drop
    ip daddr @resolvers udp dport 53 accept
    ip daddr @resolvers tcp dport 53 accept
    drop
  }
  chain translate {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${formatCidr(plan.pool)} oifname @egress masquerade
  }
}
`;
}

function elements(items: readonly string[]): string {
  return items.length === 0 ? "" : `elements = ${braced(items)}`;
}

function braced(items: readonly string[]): string {
  return `{ ${items.join(", ")} }`;
}

function element(slot: Slot): string {
  return `"${slot.host_device}" . ${slot.runtime_host}`;
}

/** Installs the table, or replaces it, in one transaction. */
export async function installTable(plan: SlotPlan, content: TableContent): Promise<void> {
  await run(["nft", "-f", "-"], { input: hostTable(plan, content) });
}

/** Removes the table; content when it is not there. */
export async function removeTable(plan: SlotPlan): Promise<void> {
  const name = tableName(plan);
  await run(["nft", "-f", "-"], { input: `add table inet ${name}\ndelete table inet ${name}\n` });
}

/** A slot whose way out is opened or closed. */
export interface EgressChange {
  readonly slot: Slot;
  readonly open: boolean;
}

/**
 * Opens and closes ways out in the installed table, all in one transaction; content with those that are so already.
 * Throws RunError when the table is not there.
 */
export async function changeOpened(plan: SlotPlan, changes: readonly EgressChange[]): Promise<void> {
  const target = `inet ${tableName(plan)} opened`;
  const named = (some: readonly EgressChange[]): string => braced(some.map(({ slot }) => element(slot)));
  const closed = changes.filter(({ open }) => !open);
  await run(["nft", "-f", "-"], {
    // Deleting what is not there is an error to nft 1.0.6 (it has no "destroy"): added first, it is always there.
    input: [
      `add element ${target} ${named(changes)}`,
      ...(closed.length === 0 ? [] : [`delete element ${target} ${named(closed)}`]),
      "",
    ].join("\n"),
  });
}

/** Numbers of the slots that the installed table lets out, or undefined when there is no table. */
export async function readOpened(plan: SlotPlan): Promise<Set<number> | undefined> {
  const { code, stdout } = await run(["nft", "-j", "list", "set", "inet", tableName(plan), "opened"], {
    okCodes: [0, 1],
  });
  if (code !== 0) return undefined;
  const opened = new Set<number>();
  const { nftables } = JSON.parse(stdout) as { nftables: { set?: { elem?: unknown[] } }[] };
  for (const item of nftables.flatMap(({ set }) => set?.elem ?? [])) {
    const [device] = (item as { concat?: unknown[] }).concat ?? [];
    const index = typeof device === "string" ? plan.indexOf(device) : undefined;
    if (index !== undefined && index < plan.capacity) opened.add(index);
  }
  return opened;
}
