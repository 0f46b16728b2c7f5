/** The time, as a port: tests bring their own. */
export interface Clock {
  /** Now, as RFC 3339 in UTC with milliseconds. */
  now(): string;
  /** Milliseconds from some fixed point, never stepping back. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  now: () => new Date().toISOString(),
  monotonicMs: () => performance.now(),
};
