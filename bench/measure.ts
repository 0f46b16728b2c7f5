/** Times of one side of a comparison, in milliseconds, as they were taken. */
export type Times = readonly number[];

/** One comparison: what was measured, what it is held against, and how it came out. */
export interface Comparison {
  readonly name: string;
  /** What side A does and what side B does, in a few words. */
  readonly measured: string;
  readonly against: string;
  /** On which VMM, or "none". */
  readonly vmm: string;
  /** The highest ratio of medians that the project wants. */
  readonly goal: number;
  readonly a: Times;
  readonly b: Times;
}

export interface Summary {
  readonly p50: number;
  readonly p99: number;
}

/** The value below which a share `part` (0 to 1) of the times lies: the nearest rank, so that it was really measured. */
export function percentile(times: Times, part: number): number {
  const sorted = times.toSorted((x, y) => x - y);
  const value = sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)];
  if (value === undefined) throw new RangeError("there are no times");
  return value;
}

export function summary(times: Times): Summary {
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) };
}

/** The ratio of the medians, A over B, and the interval that holds it in 95 of 100 redraws of both sides (bootstrap). */
export function ratio(
  a: Times,
  b: Times,
): { readonly ratio: number; readonly low: number; readonly high: number } {
  const redraw = (times: Times): Times =>
    times.map(() => times[Math.floor(Math.random() * times.length)] ?? Number.NaN);
  const drawn = Array.from({ length: 500 }, () => percentile(redraw(a), 0.5) / percentile(redraw(b), 0.5));
  return {
    ratio: percentile(a, 0.5) / percentile(b, 0.5),
    low: percentile(drawn, 0.025),
    high: percentile(drawn, 0.975),
  };
}

/**
 * Takes both sides in turn, A B A B, so that what else the machine does befalls both; the first pair warms up and is
 * not kept. Each side returns the milliseconds that count, so that what it prepares and puts back does not.
 */
export async function interleave(
  samples: number,
  a: () => Promise<number>,
  b: () => Promise<number>,
): Promise<{ a: Times; b: Times }> {
  await a();
  await b();
  const times: { a: number[]; b: number[] } = { a: [], b: [] };
  for (let taken = 0; taken < samples; taken += 1) {
    times.a.push(await a());
    times.b.push(await b());
  }
  return times;
}

/** The milliseconds that `work` takes. */
export async function time(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}
