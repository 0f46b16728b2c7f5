import type { Warning } from "../contract/health.ts";
import type { HostItem, Mended, Quiet } from "../model/inventory.ts";

/** The constants that every guest sees inside its namespace: a memory snapshot fits every slot. */
export const GUEST_NETWORK = {
  tap_device: "tap0",
  guest_address: "172.16.0.2",
  gateway_address: "172.16.0.1",
  prefix_length: 30,
  guest_mac: "06:00:ac:10:00:02",
  gateway_mac: "06:00:ac:10:00:01",
} as const;

/** A ready network place on the host for one machine. */
export interface Slot {
  readonly index: number;
  /** Name under /run/netns. */
  readonly netns: string;
  readonly netns_path: string;
  /** The host's end of the veth pair. */
  readonly host_device: string;
  readonly host_address: string;
  /** The address at which the host reaches the guest, translated 1:1. */
  readonly runtime_host: string;
  /** Name of the tap inside the namespace. */
  readonly tap_device: string;
  /** Owner of the tap, and the ids that the VMM of this slot runs as. */
  readonly uid: number;
  readonly gid: number;
}

/** A slot that a record holds. */
export interface HeldSlot {
  readonly index: number;
  /**
   * A process that lives in its namespace, where there is one. A namespace can lose its name and lives on with what runs
   * in it: so it is found again.
   */
  readonly pid?: number;
  /** True when the guest's way out must be open; undefined when it may be either. */
  readonly open?: boolean;
}

/** The door of the network room. */
export interface Network {
  /**
   * Claims pool and uid range for this root, sets the sysctls, installs the table in one transaction, takes over the
   * slots in `inUse` (remaking what is missing of them around the process that `living` has for one), removes slots of
   * ours that nobody owns, fills the pool.
   * Refuses to start (throws a plain Error with a sentence for the operator) when the pool clashes with a foreign route or claim.
   */
  open(inUse: readonly number[], living?: ReadonlyMap<number, number>): Promise<void>;
  /**
   * A slot whose guest reaches nothing yet and that only the host reaches: the one with the number `preferred` where
   * that is free, any other where it is not. Throws `host_full` when none is left.
   */
  acquire(signal?: AbortSignal, preferred?: number): Promise<Slot>;
  /** The slot with this number, without touching the host. */
  slot(index: number): Slot;
  /** Opens the guest's way out. Idempotent. */
  openEgress(slot: Slot): Promise<void>;
  /** Closes the guest's way out and cuts its tracked connections. Idempotent. */
  closeEgress(slot: Slot): Promise<void>;
  /**
   * Gives back the slot of a guest that is gone. Its way out is closed and all of it unmade behind the answer, and before
   * anybody gets it anew.
   */
  release(slot: Slot): Promise<void>;
  /** The resolvers that guests are given, in order. */
  readonly resolvers: readonly string[];
  /** What an operator should know: no egress interface, a foreign table that drops forwarding, … */
  warnings(): Promise<Warning[]>;
  /**
   * All that this room has on the host, or should have: its table, claim, route and sysctls, and its slots. `look`: into
   * how many slots it looks from inside, which takes a few milliseconds each; some take turns, the rest is read from /proc.
   */
  inventory(held: readonly HeldSlot[], quiet: Quiet, look: "some" | "all"): Promise<HostItem[]>;
  /**
   * Mends what `inventory` found to be wrong, without touching what is right. Slots of records must not be given back
   * meanwhile: the caller holds their machines' locks. Never throws: each failure is told.
   */
  mend(items: readonly HostItem[], held: readonly HeldSlot[], quiet: Quiet): Promise<Mended[]>;
  /** Waits for work behind answers to end and unmakes the pool of ready slots. Slots in use, and the table, stay. */
  close(): Promise<void>;
}
