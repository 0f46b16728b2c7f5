import type { Item, Owner, Scope } from "./item.ts";
import { asRecord, jsonIn, ownerOfLink, type Place, records, runIn } from "./place.ts";

/** Links and addresses of `place`. What a guest changes by coming and going (carrier, counters) is left out. */
export async function readLinks(scope: Scope, place: Place): Promise<Item[]> {
  const items: Item[] = [];
  for (const link of records(await jsonIn(place, ["ip", "-d", "-j", "addr", "show"]))) {
    const name = String(link["ifname"]);
    const info = asRecord(link["linkinfo"]);
    const data = asRecord(info?.["info_data"]);
    const flags = Array.isArray(link["flags"]) ? link["flags"].map(String) : [];
    const owned = own(place, ownerOfLink(scope, name));
    items.push({
      resource: "link",
      name: `${place.label}: ${name}`,
      value: JSON.stringify({
        kind: info?.["info_kind"] ?? link["link_type"],
        type: data?.["type"],
        user: data?.["user"],
        group: data?.["group"],
        mtu: link["mtu"],
        master: link["master"],
        mac: link["address"],
        up: flags.includes("UP"),
        promiscuous: flags.includes("PROMISC"),
      }),
      ...owned,
    });
    for (const address of records(link["addr_info"])) {
      // The kernel gives a link-local address a while after a link came up, by itself.
      if (address["family"] === "inet6" && address["scope"] === "link") continue;
      items.push({
        resource: "address",
        name: `${place.label}: ${name} ${String(address["local"])}/${String(address["prefixlen"])}`,
        value: JSON.stringify([address["scope"], address["label"]]),
        ...owned,
      });
    }
  }
  return items;
}

/** Routes of all tables and policy rules of `place`. */
export async function readRoutes(scope: Scope, place: Place): Promise<Item[]> {
  const items: Item[] = [];
  for (const route of records(await jsonIn(place, ["ip", "-d", "-j", "route", "show", "table", "all"]))) {
    const { type, dst, dev, table, gateway, protocol, metric, prefsrc, scope: reach } = route;
    // Likewise the kernel's own IPv6 routes, of link-local addresses and multicast.
    if (String(dst).includes(":") && protocol === "kernel") continue;
    // A route of a link that is down is dead until it comes up: flags are left out.
    const key = [type ?? "unicast", dst, "dev", dev ?? "-", "via", gateway ?? "-", "table", table ?? "main"];
    items.push({
      resource: "route",
      name: `${place.label}: ${key.map(String).join(" ")}`,
      value: JSON.stringify({ protocol, metric, prefsrc, scope: reach }),
      ...own(place, typeof dev === "string" ? ownerOfLink(scope, dev) : ownerOfPoolRoute(type, protocol)),
    });
  }
  return items;
}

/** The daemon keeps unused addresses of its pool unreachable by one route, with a protocol number of its own. */
function ownerOfPoolRoute(type: unknown, protocol: unknown): Owner | undefined {
  return type === "unreachable" && protocol === "196" ? { of: "daemon" } : undefined;
}

/** Policy rules of `place`: the daemon uses none, so each is somebody else's or a leak. */
export async function readRules(place: Place): Promise<Item[]> {
  const items: Item[] = [];
  for (const family of ["-4", "-6"] as const) {
    for (const rule of records(await jsonIn(place, ["ip", family, "-j", "rule", "show"]))) {
      items.push({
        resource: "rule",
        name: `${place.label}: ${family} ${JSON.stringify(rule)}`,
        value: "",
        ...own(place, undefined),
      });
    }
  }
  return items;
}

/** Folders and files of /proc/sys whose values a daemon of this kind has a reason to touch. */
const SYSCTLS = [
  "net/ipv4/ip_forward",
  "net/ipv4/ip_local_port_range",
  "net/ipv4/ip_local_reserved_ports",
  "net/ipv4/neigh/default",
  "net/ipv4/conf/all",
  "net/ipv4/conf/default",
  "net/ipv4/conf/lo",
  "net/ipv6/conf/all",
  "net/ipv6/conf/default",
  "net/ipv6/conf/lo",
  "net/netfilter",
  "net/bridge",
  "net/core/rmem_max",
  "net/core/wmem_max",
  "net/core/somaxconn",
  "kernel/pid_max",
  "kernel/threads-max",
  "vm/overcommit_memory",
  "vm/max_map_count",
  "vm/nr_hugepages",
  "vm/swappiness",
  "fs/inotify",
  "fs/file-max",
  "fs/aio-max-nr",
  "fs/nr_open",
  "user/max_user_namespaces",
] as const;

/** Counters that live among the settings. */
const COUNTERS = /nf_conntrack_(count|buckets)$|nf_log\//;

/** Sysctls of the host's namespace: the ones of slots vanish with them. */
export async function readSysctls(place: Place): Promise<Item[]> {
  const paths = SYSCTLS.map((path) => `/proc/sys/${path}`);
  // Some files of these folders cannot be read, some kernels lack some: both are no error (-s, exit code 2).
  const text = await runIn(place, ["grep", "-rs", ".", ...paths], [0, 1, 2]);
  return text
    .split("\n")
    .map((line) => /^\/proc\/sys\/([^:]+):(.*)$/.exec(line))
    .flatMap((match): Item[] => {
      const [, name, value] = match ?? [];
      if (name === undefined || value === undefined || COUNTERS.test(name)) return [];
      return [{ resource: "sysctl", name: `${place.label}: ${name}`, value }];
    });
}

/** All inside a slot's namespace is the slot's; on the host, a name must tell. */
function own(place: Place, byName: Owner | undefined): { owner?: Owner } {
  if (place.slot !== undefined) return { owner: { of: "slot", index: place.slot } };
  return byName === undefined ? {} : { owner: byName };
}
