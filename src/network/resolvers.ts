import { readFileSync } from "node:fs";
import type { Warning } from "../contract/health.ts";
import { type Cidr, overlaps, parseAddress, parseCidr } from "./addresses.ts";
import { GUEST_NETWORK } from "./types.ts";

/** glibc reads no more than three. */
const MOST_RESOLVERS = 3;
/** Public resolvers of two operators, for hosts whose own cannot be given to a guest. */
export const FALLBACK_RESOLVERS = ["1.1.1.1", "9.9.9.9"] as const;
const HOST_RESOLV_CONF = "/etc/resolv.conf";
/** Where systemd-resolved lists the real servers behind its 127.0.0.53. */
const RESOLVED_UPSTREAMS = "/run/systemd/resolve/resolv.conf";

const LOOPBACK: Cidr = { base: 127 * 2 ** 24, prefix: 8 };
/** The guest's own link: inside a guest these addresses are the guest and its gateway. */
const GUEST_LINK = parseCidr(`${GUEST_NETWORK.gateway_address.replace(/\d+$/, "0")}/30`);

export interface ResolverChoice {
  readonly resolvers: readonly string[];
  readonly warnings: readonly Warning[];
}

/**
 * The resolvers that guests get: the setting's, else the host's, with loopback ones replaced by those behind
 * systemd-resolved, else public ones with a warning. IPv6 ones are left out: slots have no IPv6.
 * Throws an Error that names FIRECRACKER_HOST_DNS when the setting holds what a guest cannot use.
 */
export function chooseResolvers(
  setting: readonly string[],
  files: { host: string; upstreams: string },
): ResolverChoice {
  if (setting.length > 0) {
    const unusable = setting.find((address) => !isUsable(address));
    if (unusable !== undefined) {
      throw new Error(
        `FIRECRACKER_HOST_DNS holds "${unusable}": each must be an IPv4 address that a guest can reach, no loopback one.`,
      );
    }
    return { resolvers: [...new Set(setting)].slice(0, MOST_RESOLVERS), warnings: [] };
  }
  const own = nameservers(files.host);
  const usable = own.filter(isUsable);
  const found =
    usable.length === 0 || own.some(isLoopback)
      ? [...nameservers(files.upstreams).filter(isUsable), ...usable]
      : usable;
  if (found.length > 0) return { resolvers: [...new Set(found)].slice(0, MOST_RESOLVERS), warnings: [] };
  return {
    resolvers: FALLBACK_RESOLVERS,
    warnings: [
      {
        code: "resolvers_public",
        severity: "warning",
        text: `The host's resolvers (${own.join(", ") || "none"}) cannot be reached by guests, which get the public ${FALLBACK_RESOLVERS.join(" and ")} instead. Set FIRECRACKER_HOST_DNS to others.`,
      },
    ],
  };
}

/** Reads the host's files and chooses. */
export function readResolvers(setting: readonly string[]): ResolverChoice {
  return chooseResolvers(setting, { host: textOf(HOST_RESOLV_CONF), upstreams: textOf(RESOLVED_UPSTREAMS) });
}

function nameservers(resolvConf: string): string[] {
  return [...resolvConf.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)].flatMap(([, address]) => address ?? []);
}

function isLoopback(address: string): boolean {
  const base = parseAddress(address);
  return address === "::1" || (base !== undefined && overlaps(LOOPBACK, { base, prefix: 32 }));
}

function isUsable(address: string): boolean {
  const base = parseAddress(address);
  if (base === undefined || base < 2 ** 24 || base >= 224 * 2 ** 24) return false;
  const block = { base, prefix: 32 };
  return !overlaps(LOOPBACK, block) && !(GUEST_LINK !== undefined && overlaps(GUEST_LINK, block));
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
