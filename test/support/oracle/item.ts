/** What the oracle can see of a host. */
export type Resource =
  | "namespace"
  | "link"
  | "address"
  | "route"
  | "rule"
  | "nft"
  | "sysctl"
  | "cgroup"
  | "mount"
  | "loop"
  | "process"
  | "socket"
  | "file"
  | "operation";

/**
 * Whom a thing belongs to, read from its name or place, never from the daemon's word.
 * `daemon`: of the daemon itself, allowed while it runs. `stray`: ours by its place, but nothing has such a name.
 */
export type Owner =
  | { readonly of: "slot"; readonly index: number }
  | { readonly of: "jail"; readonly id: string }
  | { readonly of: "machine"; readonly id: string }
  | { readonly of: "snapshot"; readonly id: string }
  | { readonly of: "daemon" }
  | { readonly of: "stray" };

/** One thing that exists. Two inventories agree when the same names have the same values. */
export interface Item {
  readonly resource: Resource;
  /** Unique within its resource. */
  readonly name: string;
  /** What must not change while the thing exists; without counters, handles and times. */
  readonly value: string;
  /** Undefined for what is not ours. */
  readonly owner?: Owner;
  /** Of a process. */
  readonly pid?: number;
}

export interface Inventory {
  readonly scope: Scope;
  readonly items: readonly Item[];
}

export type Change = "leaked" | "missing" | "altered";

/** One way in which the host is not as it should be. */
export interface Difference {
  readonly kind: Change;
  readonly resource: Resource;
  /** A sentence's worth: the name, and for something altered what it was and is. */
  readonly what: string;
  readonly owner?: string;
}

/** Which daemon is judged. */
export interface Scope {
  /** The daemon's root folder, as its real path. */
  readonly rootDir: string;
  /** Six hex digits in the name of all that the daemon makes. */
  readonly tag: string;
  /** Name under /run/netns of the namespace that plays the host; without it, the one that the caller runs in. */
  readonly netns?: string;
  /** Further folders that must not change, such as a TMPDIR of the daemon's own. */
  readonly watch?: readonly string[];
}

/** `owner` in a few words. */
export function describeOwner(owner: Owner): string {
  if (owner.of === "slot") return `slot ${owner.index}`;
  return "id" in owner ? `${owner.of} ${owner.id}` : owner.of;
}
