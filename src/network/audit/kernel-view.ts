import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import type { Slot } from "../types.ts";

/** What the kernel tells without a process: through /proc, of this namespace and of those that a process lives in. */

/** Settings of the host's end of a slot, as making.ts sets them. */
const DEVICE_SYSCTLS = {
  forwarding: "1",
  rp_filter: "1",
  accept_redirects: "0",
} as const;

/** True when two paths lead to the same namespace. */
export function isSameNamespace(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }));
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

/** Names of the links in the namespace of a process; undefined when it is gone. */
export function linksOf(pid: number | "self"): ReadonlySet<string> | undefined {
  const text = textOf(`/proc/${pid}/net/dev`);
  if (text === undefined) return undefined;
  return new Set(text.split("\n").flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? []));
}

/** Routes of this namespace by `device destination/mask`, both as the kernel's hex digits; an unreachable one has the device `*`. */
export function routesHere(): ReadonlySet<string> {
  const lines = (textOf("/proc/net/route") ?? "").split("\n").slice(1);
  return new Set(
    lines.map((line) => {
      const [device, destination, , , , , , mask] = line.trim().split(/\s+/);
      return `${device} ${destination}/${mask}`;
    }),
  );
}

/** An address and a prefix as /proc/net/route writes them: bytes in the host's order. */
export function routeKey(device: string, address: number, prefix: number): string {
  const mask = prefix === 0 ? 0 : (0xff_ff_ff_ff << (32 - prefix)) >>> 0;
  return `${device} ${hexOf(address)}/${hexOf(mask)}`;
}

function hexOf(value: number): string {
  const bytes = [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
  return bytes.map((byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join("");
}

/** Settings of the host's end of a slot that are not as they should be, as `name is value, should be value`. */
export function alteredDeviceSysctls({ host_device }: Slot): string[] {
  const folder = `/proc/sys/net/ipv4/conf/${host_device}`;
  const wrong = Object.entries(DEVICE_SYSCTLS).flatMap(([name, wanted]) =>
    difference(`net.ipv4.conf.${host_device}.${name}`, textOf(`${folder}/${name}`), wanted),
  );
  const ipv6 = `/proc/sys/net/ipv6/conf/${host_device}/disable_ipv6`;
  if (!existsSync(ipv6)) return wrong;
  return [...wrong, ...difference(`net.ipv6.conf.${host_device}.disable_ipv6`, textOf(ipv6), "1")];
}

function difference(name: string, found: string | undefined, wanted: string): string[] {
  const value = found?.trim();
  return value === undefined || value === wanted ? [] : [`${name} is ${value}, should be ${wanted}`];
}

/**
 * True when the process holds a tap that is no more: once a tap is deleted, whoever had it open keeps a descriptor that
 * leads nowhere, also when another tap of that name is made.
 */
export function holdsLostTap(pid: number): boolean {
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder).some((fd) => {
      if (linkOf(`${folder}/${fd}`) !== "/dev/net/tun") return false;
      return /^iff:\s*$/m.test(textOf(`/proc/${pid}/fdinfo/${fd}`) ?? "");
    });
  } catch {
    return false;
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
