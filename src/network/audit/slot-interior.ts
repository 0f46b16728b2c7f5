import { run } from "../../system/run.ts";
import { SLOT_TABLE } from "../slot-rules.ts";
import { GUEST_NETWORK, type Slot } from "../types.ts";
import { readListing } from "./listing.ts";

/** Four programs for each slot: a batch takes a second or so. */
const LOOK_TIMEOUT_MS = 60_000;
/** A slot tells some kilobytes, and a subprocess may tell a few megabytes. */
const LOOK_BATCH = 64;

/** Settings inside of a slot, as making.ts sets them. */
const SYSCTLS: Readonly<Record<string, string>> = {
  "ipv4/ip_forward": "1",
  ...Object.fromEntries(
    ["all", "default", "uplink0"].flatMap((name) => [
      [`ipv4/conf/${name}/rp_filter`, "1"],
      [`ipv4/conf/${name}/arp_ignore`, "1"],
      [`ipv4/conf/${name}/accept_redirects`, "0"],
      [`ipv4/conf/${name}/send_redirects`, "0"],
      [`ipv4/conf/${name}/accept_source_route`, "0"],
    ]),
  ),
  "ipv6/conf/all/disable_ipv6": "1",
  "ipv6/conf/default/disable_ipv6": "1",
  "netfilter/nf_conntrack_tcp_loose": "0",
  "netfilter/nf_conntrack_tcp_be_liberal": "1",
};

const LOOK = `for path in "$@"; do
echo "slot $path"
nsenter --net="$path" sh -c '
cd /proc/sys/net
grep -s . ${Object.keys(SYSCTLS).join(" ")}
echo links; ip -j -d addr
echo routes; ip -j -4 route
echo rules; nft -j list table inet ${SLOT_TABLE} 2>/dev/null
true'
done
`;

/** What was found inside of one slot. */
export interface Interior {
  readonly sysctls: ReadonlyMap<string, string>;
  readonly links: readonly Link[];
  readonly routes: readonly { readonly dst: string; readonly gateway?: string; readonly dev?: string }[];
  /** The table's listing with the slot's addresses replaced, so that all slots have the same; undefined without a table. */
  readonly rules: string | undefined;
}

interface Link {
  readonly ifname: string;
  readonly address?: string;
  readonly flags?: readonly string[];
  readonly addr_info?: readonly { readonly local?: string; readonly prefixlen?: number }[];
  readonly linkinfo?: { readonly info_data?: { readonly user?: unknown } };
}

/** Something inside of a slot that is not as it should be. */
export interface InteriorProblem {
  readonly resource: "link" | "route" | "sysctl" | "nftables";
  readonly name: string;
  readonly status: "missing" | "altered";
  readonly detail?: string;
}

/** Looks into slots, by one subprocess for each batch of them. A slot that vanishes meanwhile is left out. */
export async function lookInside(slots: readonly Slot[]): Promise<ReadonlyMap<number, Interior>> {
  const found = new Map<number, Interior>();
  for (let start = 0; start < slots.length; start += LOOK_BATCH) {
    const batch = slots.slice(start, start + LOOK_BATCH);
    const paths = batch.map(({ netns_path }) => netns_path);
    const { stdout } = await run(["sh", "-c", LOOK, "look", ...paths], { timeoutMs: LOOK_TIMEOUT_MS });
    for (const part of stdout.split(/^slot /m).slice(1)) {
      const slot = batch.find(({ netns_path }) => part.startsWith(`${netns_path}\n`));
      const interior =
        slot === undefined ? undefined : parseInterior(slot, part.slice(slot.netns_path.length));
      if (slot !== undefined && interior !== undefined) found.set(slot.index, interior);
    }
  }
  return found;
}

function parseInterior(slot: Slot, text: string): Interior | undefined {
  const [, sysctls, links, routes, rules] =
    /^\n([^]*?)links\n([^]*?)routes\n([^]*?)rules\n([^]*)$/.exec(text) ?? [];
  if (sysctls === undefined || links === undefined || links.trim() === "") return undefined;
  const replace = { [slot.runtime_host]: "<runtime_host>", [slot.host_address]: "<host_address>" };
  return {
    sysctls: new Map(
      sysctls.split("\n").flatMap((line): [string, string][] => {
        const [, name, value] = /^([^:]+):(.*)$/.exec(line) ?? [];
        return name === undefined || value === undefined ? [] : [[name, value.trim()]];
      }),
    ),
    links: JSON.parse(links) as Link[],
    routes: routes === undefined || routes.trim() === "" ? [] : (JSON.parse(routes) as Interior["routes"]),
    rules:
      rules === undefined || rules.trim() === "" ? undefined : readListing(rules, undefined, replace).text,
  };
}

/** What is wrong inside of a slot, given the rules that each slot has. */
export function interiorProblems(
  slot: Slot,
  interior: Interior,
  rules: string | undefined,
): InteriorProblem[] {
  const { tap_device, gateway_address, gateway_mac, prefix_length } = GUEST_NETWORK;
  const found = [
    ...linkProblems(interior, "uplink0", `${slot.runtime_host}/31`),
    ...linkProblems(interior, tap_device, `${gateway_address}/${prefix_length}`, {
      address: gateway_mac,
      user: slot.uid,
    }),
  ];
  const byUplink = interior.routes.some(
    ({ dst, gateway, dev }) => dst === "default" && gateway === slot.host_address && dev === "uplink0",
  );
  if (!byUplink) found.push({ resource: "route", name: "default", status: "missing" });
  for (const [path, wanted] of Object.entries(SYSCTLS)) {
    // A kernel without it has nothing to set; one of a link that is missing is told by that.
    const value = interior.sysctls.get(path);
    if (value === undefined || value === wanted) continue;
    const name = `net.${path.replaceAll("/", ".")}`;
    found.push({
      resource: "sysctl",
      name,
      status: "altered",
      detail: `it is ${value}, should be ${wanted}`,
    });
  }
  const name = `table inet ${SLOT_TABLE}`;
  if (interior.rules === undefined) found.push({ resource: "nftables", name, status: "missing" });
  else if (rules !== undefined && interior.rules !== rules)
    found.push({ resource: "nftables", name, status: "altered", detail: "its rules were changed" });
  return found;
}

function linkProblems(
  { links }: Interior,
  name: string,
  wantedAddress: string,
  wanted?: { readonly address: string; readonly user: number },
): InteriorProblem[] {
  const link = links.find(({ ifname }) => ifname === name);
  if (link === undefined) return [{ resource: "link", name, status: "missing" }];
  const addresses = (link.addr_info ?? []).map(({ local, prefixlen }) => `${local}/${prefixlen}`);
  const wrong = [
    ...(link.flags?.includes("UP") === true ? [] : ["it is down"]),
    ...(addresses.includes(wantedAddress) ? [] : [`it does not have the address ${wantedAddress}`]),
    ...(wanted === undefined || link.address === wanted.address ? [] : [`its MAC is ${link.address}`]),
    ...(wanted === undefined || Number(link.linkinfo?.info_data?.user) === wanted.user
      ? []
      : [`it belongs to ${String(link.linkinfo?.info_data?.user)}, should to ${wanted.user}`]),
  ];
  return wrong.length === 0 ? [] : [{ resource: "link", name, status: "altered", detail: wrong.join(", ") }];
}
