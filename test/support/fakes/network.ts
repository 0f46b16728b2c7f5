import { AppError } from "../../../src/contract/errors.ts";
import type { Warning } from "../../../src/contract/health.ts";
import type { HostItem, Mended, Quiet } from "../../../src/model/inventory.ts";
import type { HeldSlot, Network, Slot } from "../../../src/network/types.ts";

/** Slots that exist only here. Knows which are held and which may send. */
export class FakeNetwork implements Network {
  readonly held = new Set<number>();
  readonly open_egress = new Set<number>();
  readonly resolvers = ["192.0.2.53"];
  readonly size: number;
  failRelease: Error | undefined;
  /** What an inventory tells beside its slots, until it is mended. */
  broken: HostItem[] = [];
  /** Thrown by the mending of any item, as long as it is set. */
  failMend: string | undefined;

  constructor(size = 8) {
    this.size = size;
  }

  open(inUse: readonly number[]): Promise<void> {
    for (const index of inUse) this.held.add(index);
    return Promise.resolve();
  }

  async acquire(signal?: AbortSignal, preferred = 0): Promise<Slot> {
    await Promise.resolve();
    signal?.throwIfAborted();
    const numbers = Array.from({ length: this.size }, (_, number) => number);
    for (const index of [preferred, ...numbers]) {
      if (index >= this.size || this.held.has(index)) continue;
      this.held.add(index);
      return this.slot(index);
    }
    throw new AppError("host_full", "no slot is left");
  }

  slot(index: number): Slot {
    return {
      index,
      netns: `ch-fake00-${index}`,
      netns_path: `/run/netns/ch-fake00-${index}`,
      host_device: `chfake00v${index}`,
      host_address: `10.200.0.${index * 2}`,
      runtime_host: `10.200.0.${index * 2 + 1}`,
      tap_device: "tap0",
      uid: 200000 + index,
      gid: 200000 + index,
    };
  }

  openEgress(slot: Slot): Promise<void> {
    this.open_egress.add(slot.index);
    return Promise.resolve();
  }

  closeEgress(slot: Slot): Promise<void> {
    this.open_egress.delete(slot.index);
    return Promise.resolve();
  }

  async release(slot: Slot): Promise<void> {
    if (this.failRelease !== undefined) throw this.failRelease;
    await this.closeEgress(slot);
    this.held.delete(slot.index);
  }

  inventory(held: readonly HeldSlot[], _quiet: Quiet, _look: "some" | "all"): Promise<HostItem[]> {
    const known = new Set(held.map(({ index }) => index));
    const slots = [...this.held].map((index): HostItem => {
      const name = this.slot(index).netns;
      const holder = { of: "slot", index } as const;
      return { resource: "namespace", name, holder, status: known.has(index) ? "ok" : "leaked" };
    });
    return Promise.resolve([...slots, ...this.broken]);
  }

  mend(items: readonly HostItem[]): Promise<Mended[]> {
    return Promise.resolve(
      items.map(({ resource, name, holder, status }) => {
        if (this.failMend !== undefined)
          return { resource, name, action: "tried", ok: false, reason: this.failMend };
        this.broken = this.broken.filter((item) => item.name !== name);
        if (status === "leaked" && holder.of === "slot") this.held.delete(holder.index);
        return { resource, name, action: "mended", ok: true };
      }),
    );
  }

  warnings(): Promise<Warning[]> {
    return Promise.resolve([]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
