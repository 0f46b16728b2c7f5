import { setTimeout as sleep } from "node:timers/promises";

/**
 * Asks `probe` every 20 ms until it returns something other than undefined or false, and returns that.
 * Throws after `timeoutMs`, naming `what`, which may be a function so that it can tell what was seen.
 */
export async function waitFor<T>(
  what: string | (() => string),
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 15_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) {
      throw new Error(`not within ${timeoutMs} ms: ${typeof what === "string" ? what : what()}`);
    }
    await sleep(20);
  }
}

export { sleep };
