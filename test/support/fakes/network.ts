import { AppError } from "../../../src/contract/errors.ts";
import type { Warning } from "../../../src/contract/health.ts";
import type { Network, Slot } from "../../../src/network/types.ts";

/** Slots that exist only here. Knows which are held and which may send. */
export class FakeNetwork implements Network {
  readonly held = new Set<number>();
  readonly open_egress = new Set<number>();
  readonly resolvers = ["192.0.2.53"];
  readonly size: number;
  failRelease: Error | undefined;

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

  warnings(): Promise<Warning[]> {
    return Promise.resolve([]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
