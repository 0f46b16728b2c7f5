import type { TokenBucketConfig } from "./bodies.ts";

/** A rate: `size` tokens that fill up again within `refill_time` milliseconds, plus a burst that is given once. */
export class TokenBucket {
  readonly #size: number;
  readonly #refillMs: number;
  readonly #now: () => number;
  #burst: number;
  #budget: number;
  #updated: number;

  /** `now`: milliseconds that never step back. */
  constructor(config: TokenBucketConfig, now: () => number) {
    this.#size = config.size;
    this.#refillMs = config.refill_time;
    this.#burst = config.one_time_burst ?? 0;
    this.#budget = config.size;
    this.#now = now;
    this.#updated = now();
  }

  /** Takes up to `wanted` tokens and returns how many there were. */
  take(wanted: number): number {
    const fromBurst = Math.min(wanted, this.#burst);
    this.#burst -= fromBurst;
    this.#replenish();
    const fromBudget = Math.min(wanted - fromBurst, Math.floor(this.#budget));
    this.#budget -= fromBudget;
    return fromBurst + fromBudget;
  }

  #replenish(): void {
    const now = this.#now();
    const gained = ((now - this.#updated) / this.#refillMs) * this.#size;
    this.#budget = Math.min(this.#size, this.#budget + gained);
    this.#updated = now;
  }
}

/** The bucket of a configuration, or undefined where it sets no limit (none given, or one of its numbers is 0). */
export function tokenBucketOf(config: TokenBucketConfig | null, now: () => number): TokenBucket | undefined {
  if (config === null || config.size === 0 || config.refill_time === 0) return undefined;
  return new TokenBucket(config, now);
}
