const FIRST_MS = 1000;
const LONGEST_MS = 60_000;

/** How long to wait after the `count`th failure in a row: one second, then twice as long each time, a minute at most. */
export function backOffMs(count: number): number {
  return Math.min(FIRST_MS * 2 ** Math.min(count - 1, 10), LONGEST_MS);
}
