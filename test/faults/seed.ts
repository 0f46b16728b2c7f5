import type { TestContext } from "node:test";

export interface Random {
  /** A whole number from 0 up to, but not with, `limit`. */
  below(limit: number): number;
  /** Up to `count` different items, in their order. */
  draw<Item>(items: readonly Item[], count: number): Item[];
}

/** The long form of these tests: `make test-faults`. */
export const FULL = process.env["FAULTS"] === "full";

/** How many of each kind are tried: all of them in the long form, or the number that FAULTS says; otherwise few. */
export function drawnOfEach(few: number): number {
  const asked = process.env["FAULTS"];
  if (FULL) return Number.POSITIVE_INFINITY;
  return asked === undefined || !/^\d+$/.test(asked) ? few : Number(asked);
}

/** What `make test` draws from: the same each time, so that a change is what turns it red. Longer runs draw anew. */
const SEED_OF_EACH_RUN = 20_261_127;

/** Numbers that look random and follow from SEED, which is told; where it is not given, a run with FAULTS draws one. */
export function seeded(t: TestContext): Random {
  const seed = Number(
    process.env["SEED"] ??
      (process.env["FAULTS"] === undefined ? SEED_OF_EACH_RUN : Math.floor(Math.random() * 2 ** 31)),
  );
  t.diagnostic(`SEED=${seed}`);
  let state = seed >>> 0;
  // Mulberry32, by Tommy Ettinger: short, and even enough for drawing.
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    below,
    draw: (items, count) => {
      const left = items.map((_, index) => index);
      const chosen: number[] = [];
      while (chosen.length < count && left.length > 0) chosen.push(...left.splice(below(left.length), 1));
      return items.filter((_, index) => chosen.includes(index));
    },
  };
}
