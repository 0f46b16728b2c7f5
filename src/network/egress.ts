import type { Log } from "../system/log.ts";
import { KeyedMutex } from "../system/mutex.ts";
import { changeOpened, type EgressChange, readOpened } from "./host-table.ts";
import type { SlotPlan } from "./plan.ts";
import type { Slot } from "./types.ts";

export interface EgressParts {
  readonly plan: SlotPlan;
  /** Installs the host's whole table, with the ways out that are open. */
  readonly install: () => Promise<void>;
  readonly log: Log;
}

/** Which guests have a way out, and the one place that changes that in the host's table. */
export class Egress {
  readonly #parts: EgressParts;
  readonly #turns = new KeyedMutex();
  readonly #opened = new Map<number, Slot>();
  /** What the next change opens and closes: all that is asked for while one is made is one. */
  #next: { readonly slots: Map<number, EgressChange>; readonly done: Promise<void> } | undefined;

  constructor(parts: EgressParts) {
    this.#parts = parts;
  }

  /** Slots by number whose way out is open. */
  get opened(): ReadonlyMap<number, Slot> {
    return this.#opened;
  }

  /** Notes that the table lets these out already; whoever calls installs it. */
  adopt(slots: Iterable<Slot>): void {
    for (const slot of slots) this.#opened.set(slot.index, slot);
  }

  /** Waits for the changes under way; until the holder lets go, the table is its own to read or replace whole. */
  async turn(): Promise<Disposable> {
    return await this.#turns.acquire("table");
  }

  /** Opens the guest's way out. Idempotent. Throws RunError. */
  open(slot: Slot): Promise<void> {
    return this.#change(slot, true);
  }

  /** Closes the guest's way out. Idempotent. Throws RunError. */
  close(slot: Slot): Promise<void> {
    return this.#change(slot, false);
  }

  #change(slot: Slot, open: boolean): Promise<void> {
    if (this.#next === undefined) {
      const slots = new Map<number, EgressChange>();
      this.#next = { slots, done: this.#make(slots) };
    }
    this.#next.slots.set(slot.index, { slot, open });
    return this.#next.done;
  }

  async #make(slots: ReadonlyMap<number, EgressChange>): Promise<void> {
    const { plan, install, log } = this.#parts;
    using _turn = await this.turn();
    this.#next = undefined;
    for (const [index, { slot, open }] of slots) {
      if (open) this.#opened.set(index, slot);
      else this.#opened.delete(index);
    }
    try {
      await changeOpened(plan, [...slots.values()]);
    } catch (error) {
      // Somebody removed the table: it is put back, with the change in it.
      if ((await readOpened(plan)) !== undefined) throw error;
      log.warn({}, "somebody removed this daemon's nftables table; it was put back");
      await install();
    }
  }
}
