/** What can be found on a host. */
export type Resource =
  | "namespace"
  | "link"
  | "route"
  | "nftables"
  | "sysctl"
  | "claim"
  | "jail"
  | "process"
  | "cgroup"
  | "folder"
  | "file"
  | "socket";

/** Whom a thing belongs to, by its name or place. */
export type Holder =
  | { readonly of: "slot"; readonly index: number }
  | { readonly of: "jail"; readonly id: string }
  | { readonly of: "machine"; readonly id: string }
  | { readonly of: "snapshot"; readonly id: string }
  /** A ready-made slot, or one that is being made or unmade. */
  | { readonly of: "pool" }
  /** Work under way that no record tells of, such as an image that is being fetched. */
  | { readonly of: "work" }
  | { readonly of: "daemon" };

/** `leaked`: nobody's. `missing`: it should be there. `altered`: it is there, and not as it should be. */
export type Status = "ok" | "leaked" | "missing" | "altered";

/** One thing on the host that is this daemon's, or should be there. */
export interface HostItem {
  readonly resource: Resource;
  /** Unique within its resource. */
  readonly name: string;
  readonly holder: Holder;
  readonly status: Status;
  /** What is wrong with it, as a part of a sentence. */
  readonly detail?: string;
}

/** What became of an item that was to be mended. */
export interface Mended {
  readonly resource: Resource;
  readonly name: string;
  /** What was done, or tried. */
  readonly action: string;
  readonly ok: boolean;
  /** Why it could not be mended. */
  readonly reason?: string;
}

/**
 * A moment, in milliseconds since 1970: what was made before it and is not held by a record is nobody's, because no
 * work under way is as old.
 */
export type Quiet = number;
