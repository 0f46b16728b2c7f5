import { type Cidr, formatAddress, formatCidr, overlaps, parseCidr, sizeOf } from "./addresses.ts";
import { GUEST_NETWORK, type Slot } from "./types.ts";

/** Where names are bound by `ip netns`. */
export const NETNS_DIR = "/run/netns";

/** `ch<tag>v<n>` must fit the kernel's 15 characters: six digits are left for the number. */
const MOST_SLOTS = 1_000_000;
/** The highest uid that is not one of the kernel's "nobody" values. */
const HIGHEST_UID = 2 ** 32 - 3;
/** Blocks that no pool may touch: they mean something else to the kernel, or to the guest. */
const UNUSABLE: readonly string[] = [
  "0.0.0.0/8",
  "127.0.0.0/8",
  "224.0.0.0/4",
  "240.0.0.0/4",
  `${GUEST_NETWORK.gateway_address.replace(/\d+$/, "0")}/${GUEST_NETWORK.prefix_length}`,
];

/** What is enough to find a slot on the host. */
export type SlotNames = Pick<Slot, "index" | "netns" | "netns_path" | "host_device">;

/** What a slot number stands for: addresses, names and ids, without touching the host. */
export interface SlotPlan {
  readonly tag: string;
  readonly pool: Cidr;
  readonly uidBase: number;
  /** How many slots the pool has room for; numbers are 0 to `capacity - 1`. */
  readonly capacity: number;
  /** nftables and `ip` match all host devices of this plan by this prefix. */
  readonly devicePrefix: string;
  /** The slot with this number. Throws RangeError beyond the capacity. */
  slot(index: number): Slot;
  /** The names for any number, also beyond the capacity: an earlier pool may have been larger. */
  names(index: number): SlotNames;
  /** The number in one of our device or namespace names, or undefined when the name is not one of ours. */
  indexOf(name: string): number | undefined;
}

/**
 * Lays slots over a pool: slot n owns the (n+1)th pair of addresses as a /31, the even one for the host's end.
 * The pairs that hold the pool's first and last address stay unused: other software takes these for
 * network and broadcast address. Throws an Error that names the setting when the pool or the uids are not usable.
 */
export function planSlots(options: { tag: string; cidr: string; uidBase: number }): SlotPlan {
  const { tag, uidBase } = options;
  const pool = parsePool(options.cidr);
  const capacity = Math.min(sizeOf(pool) / 2 - 2, MOST_SLOTS);
  if (!Number.isInteger(uidBase) || uidBase < 1000 || uidBase + capacity > HIGHEST_UID) {
    throw new Error(
      `FIRECRACKER_HOST_UID_BASE is ${uidBase}: it must be at least 1000 and leave room for ${capacity} uids above it.`,
    );
  }
  const devicePrefix = `ch${tag}v`;
  const netnsPrefix = `ch-${tag}-`;
  const names = (index: number): SlotNames => ({
    index,
    netns: `${netnsPrefix}${index}`,
    netns_path: `${NETNS_DIR}/${netnsPrefix}${index}`,
    host_device: `${devicePrefix}${index}`,
  });
  return {
    tag,
    pool,
    uidBase,
    capacity,
    devicePrefix,
    slot: (index) => {
      if (!Number.isInteger(index) || index < 0 || index >= capacity) {
        throw new RangeError(`There is no slot ${index}: the pool ${options.cidr} has ${capacity}.`);
      }
      const hostAddress = pool.base + 2 * (index + 1);
      return {
        ...names(index),
        host_address: formatAddress(hostAddress),
        runtime_host: formatAddress(hostAddress + 1),
        tap_device: GUEST_NETWORK.tap_device,
        uid: uidBase + index,
        gid: uidBase + index,
      };
    },
    names,
    indexOf: (name) => {
      const prefix = [netnsPrefix, devicePrefix].find((candidate) => name.startsWith(candidate));
      const digits = prefix === undefined ? "" : name.slice(prefix.length);
      return /^(0|[1-9]\d{0,5})$/.test(digits) ? Number(digits) : undefined;
    },
  };
}

function parsePool(text: string): Cidr {
  const pool = parseCidr(text);
  if (pool === undefined || pool.prefix < 8 || pool.prefix > 29) {
    throw new Error(
      `FIRECRACKER_HOST_NETWORK_CIDR is "${text}": it must be an IPv4 network from /8 to /29, such as 10.200.0.0/16.`,
    );
  }
  const taken = UNUSABLE.flatMap((block) => parseCidr(block) ?? []).find((block) => overlaps(block, pool));
  if (taken !== undefined) {
    throw new Error(
      `FIRECRACKER_HOST_NETWORK_CIDR is "${text}", which overlaps ${formatCidr(taken)}: that range has a meaning of its own.`,
    );
  }
  return pool;
}
