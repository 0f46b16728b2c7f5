import type { KeyedMutex } from "../system/mutex.ts";

/** The lock, or the signal's reason as soon as that is aborted; a lock that comes later is let go at once. */
export async function unlessEnded(acquiring: Promise<Disposable>, signal: AbortSignal): Promise<Disposable> {
  const { promise: ended, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    return await Promise.race([acquiring, ended]);
  } catch (error) {
    void acquiring.then((lock) => lock[Symbol.dispose]());
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/**
 * Holds several keys at once. They are taken in the order of their names, whoever asks and in whatever order: two that
 * want some of the same can wait for each other, but never in a circle. Throws the signal's reason, and holds none then.
 */
export async function acquireAll(
  locks: KeyedMutex,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<Disposable> {
  using held = new DisposableStack();
  for (const key of [...new Set(keys)].sort()) held.use(await unlessEnded(locks.acquire(key), signal));
  return held.move();
}
