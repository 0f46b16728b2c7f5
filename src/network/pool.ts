import { AppError } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";
import type { SlotNames, SlotPlan } from "./plan.ts";
import { SlotNumbers } from "./slot-numbers.ts";
import type { Slot } from "./types.ts";

/** Making a slot waits mostly on one lock of the kernel: more at a time only makes each slower. */
export const MOST_MAKINGS = 4;
/** A create that takes a ready slot has begun its guest by then. */
const REFILL_AFTER_MS = 100;

export interface PoolOptions {
  readonly plan: SlotPlan;
  /** How many ready slots wait for a machine. */
  readonly size: number;
  /** Makes a slot wholly, or throws and leaves nothing. */
  readonly make: (slot: Slot) => Promise<void>;
  readonly unmake: (slot: SlotNames) => Promise<void>;
  readonly log: Log;
}

interface Waiter {
  readonly take: (slot: Slot) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * Hands slots out, each to one holder only. This class is the one lock: between two awaits nothing else runs, and a
 * number moves between "free", "in the making", "ready", "in use" and "being unmade" in one step each.
 */
export class SlotPool {
  readonly #options: PoolOptions;
  readonly #ready: Slot[] = [];
  readonly #waiting: Waiter[] = [];
  /** Numbers that somebody holds, and since when, in milliseconds since 1970. */
  readonly #inUse: Map<number, number>;
  readonly #numbers: SlotNumbers;
  readonly #stuck = new Set<number>();
  readonly #background = new Set<Promise<void>>();
  /** By number: what is made or unmade at the moment. */
  readonly #moving = new Map<number, Promise<void>>();
  #making = 0;
  #unmaking = 0;
  #refilling = true;
  #refill: NodeJS.Timeout | undefined;
  #closed = false;

  /** Begins with these numbers in use and fills itself behind the caller. */
  constructor(options: PoolOptions, inUse: readonly number[]) {
    this.#options = options;
    this.#inUse = new Map(inUse.map((index) => [index, Date.now()]));
    this.#numbers = new SlotNumbers(options.plan.capacity, inUse);
    this.#pump();
  }

  /** Numbers that somebody holds, and since when, in milliseconds since 1970. */
  get inUse(): ReadonlyMap<number, number> {
    return this.#inUse;
  }

  /** Numbers of the slots that wait for a machine. */
  get ready(): ReadonlySet<number> {
    return new Set(this.#ready.map(({ index }) => index));
  }

  /** Numbers that are made or unmade at the moment. */
  get moving(): ReadonlySet<number> {
    return new Set(this.#moving.keys());
  }

  /** Numbers whose slots could not be unmade: they are not used again before one is. */
  get stuck(): ReadonlySet<number> {
    return this.#stuck;
  }

  /**
   * A ready slot, or one made now: the one with the number `preferred` if nobody else has it.
   * Throws AppError `host_full`, the making's error, or the signal's reason.
   */
  async acquire(signal?: AbortSignal, preferred?: number): Promise<Slot> {
    signal?.throwIfAborted();
    const asked = preferred === undefined ? undefined : await this.#acquireThis(preferred, signal);
    if (asked !== undefined) return asked;
    if (this.#closed) throw closedError();
    this.#refilling = true;
    const slot = this.#waiting.length === 0 ? this.#ready.shift() : undefined;
    if (slot !== undefined) {
      this.#hold(slot.index);
      this.#pumpLater();
      return slot;
    }
    const { promise, resolve, reject } = Promise.withResolvers<Slot>();
    const waiter: Waiter = {
      take: (made) => {
        this.#hold(made.index);
        resolve(made);
      },
      fail: reject,
    };
    const abort = (): void => {
      const place = this.#waiting.indexOf(waiter);
      if (place >= 0) this.#waiting.splice(place, 1);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    this.#waiting.push(waiter);
    this.#pump();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** The slot with this number, or undefined when another has it. One that is being made or unmade is waited for. */
  async #acquireThis(index: number, signal?: AbortSignal): Promise<Slot | undefined> {
    await this.#moving.get(index);
    signal?.throwIfAborted();
    if (this.#closed) throw closedError();
    const place = this.#ready.findIndex((slot) => slot.index === index);
    const [ready] = place < 0 ? [] : this.#ready.splice(place, 1);
    if (ready !== undefined) {
      this.#hold(index);
      this.#pumpLater();
      return ready;
    }
    if (!this.#numbers.takeThis(index)) return undefined;
    const { promise, resolve, reject } = Promise.withResolvers<Slot>();
    const take = (made: Slot): void => {
      this.#hold(index);
      resolve(made);
    };
    this.#startMaking(this.#options.plan.slot(index), { take, fail: reject });
    const slot = await promise;
    if (signal?.aborted !== true) return slot;
    this.release(slot);
    throw signal.reason;
  }

  /** Takes a slot back and unmakes it behind the caller. One that is not in use is left alone. */
  release(slot: Slot): void {
    if (!this.#inUse.delete(slot.index)) return;
    this.#refilling = true;
    this.#discard(slot);
  }

  /** Unmakes a slot that waits and is not whole any more; another is made in its place. One that was taken meanwhile is left alone. */
  async replace(index: number): Promise<void> {
    const place = this.#ready.findIndex((slot) => slot.index === index);
    const [slot] = place < 0 ? [] : this.#ready.splice(place, 1);
    if (slot === undefined) return;
    this.#refilling = true;
    this.#discard(slot);
    await this.settled(index);
  }

  /** Waits until the slot with this number is unmade. Throws when it could not be. */
  async settled(index: number): Promise<void> {
    await this.#moving.get(index);
    if (this.#stuck.has(index)) throw new Error("it could not be removed from the host");
  }

  /**
   * Unmakes what is on the host by a number that nobody has, or whose unmaking failed before. A number that somebody has
   * by now is left alone. Throws when it cannot be unmade.
   */
  async sweep(index: number): Promise<void> {
    if (this.#inUse.has(index) || this.#moving.has(index) || this.ready.has(index)) return;
    if (!this.#stuck.delete(index) && !this.#numbers.takeThis(index)) {
      if (index >= this.#options.plan.capacity) await this.#options.unmake(this.#options.plan.names(index));
      return;
    }
    this.#discard(this.#options.plan.slot(index));
    await this.settled(index);
  }

  #hold(index: number): void {
    this.#inUse.set(index, Date.now());
  }

  #discard(slot: Slot): void {
    this.#unmaking += 1;
    this.#inBackground(slot.index, async () => {
      try {
        await this.#options.unmake(slot);
        this.#numbers.giveBack(slot.index);
      } catch (error) {
        this.#stuck.add(slot.index);
        this.#options.log.error(
          { slot: slot.netns, error },
          "a released slot could not be removed from the host",
        );
      } finally {
        this.#unmaking -= 1;
      }
    });
  }

  /**
   * The machine that took the slot goes first: making another takes a processor for tens of milliseconds, and the pool
   * has some left. When it has few, they are made as fast as they are taken.
   */
  #pumpLater(): void {
    if (this.#ready.length * 2 < this.#options.size) setImmediate(() => this.#pump());
    else this.#refill ??= setTimeout(() => this.#pump(), REFILL_AFTER_MS).unref();
  }

  /** Refuses new holders, waits for what runs behind answers and unmakes the ready slots. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#refill);
    for (const waiter of this.#waiting.splice(0)) waiter.fail(closedError());
    while (this.#background.size > 0) await Promise.all(this.#background);
    for (const slot of this.#ready.splice(0)) await this.#options.unmake(slot);
  }

  /** Starts as many makings as waiters and the pool want; turns waiters away that no slot can come for. */
  #pump(): void {
    clearTimeout(this.#refill);
    this.#refill = undefined;
    while (this.#making < MOST_MAKINGS && this.#wanted() > this.#making) {
      const index = this.#numbers.take();
      if (index === undefined) {
        const coming = this.#making + this.#unmaking;
        for (const waiter of this.#waiting.splice(coming)) waiter.fail(this.#fullError());
        return;
      }
      this.#startMaking(this.#options.plan.slot(index));
    }
  }

  #wanted(): number {
    const { size } = this.#options;
    const forPool = this.#refilling && !this.#closed ? Math.max(0, size - this.#ready.length) : 0;
    return this.#waiting.length + forPool;
  }

  /** Makes a slot for `one` alone, or for whoever waits longest by then. */
  #startMaking(slot: Slot, one?: Waiter): void {
    this.#making += 1;
    this.#inBackground(slot.index, async () => {
      try {
        await this.#options.make(slot);
        const waiter = one ?? this.#waiting.shift();
        if (waiter !== undefined) waiter.take(slot);
        else if (this.#ready.length < this.#options.size || this.#closed) this.#ready.push(slot);
        // It was made for somebody who has given up, and the pool is full without it.
        else this.#discard(slot);
      } catch (error) {
        this.#numbers.giveBack(slot.index);
        const waiter = one ?? this.#waiting.shift();
        waiter?.fail(error);
        // With nobody waiting a failure would only repeat itself: the next acquire or release tries again.
        if (waiter === undefined) this.#refilling = false;
        this.#options.log.warn({ slot: slot.netns, error }, "a slot could not be made");
      } finally {
        this.#making -= 1;
      }
    });
  }

  #inBackground(index: number, work: () => Promise<void>): void {
    const running = work().finally(() => {
      this.#background.delete(running);
      // A slot that nobody wanted any more is being unmade by now.
      if (this.#moving.get(index) === running) this.#moving.delete(index);
      this.#pump();
    });
    this.#background.add(running);
    this.#moving.set(index, running);
  }

  #fullError(): AppError {
    return new AppError(
      "host_full",
      `All ${this.#options.plan.capacity} network slots are in use. Delete machines, or give FIRECRACKER_HOST_NETWORK_CIDR a larger network.`,
    );
  }
}

function closedError(): AppError {
  return new AppError("shutting_down", "The daemon is ending and gives out no more network slots.");
}
