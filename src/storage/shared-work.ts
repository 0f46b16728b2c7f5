/** Work that several callers need at the same time is done once, and ends early only when all of them left. */
export class SharedWork<T> {
  readonly #running = new Map<
    string,
    { readonly controller: AbortController; readonly result: Promise<T>; waiters: number }
  >();

  /**
   * Joins the work that goes on under `key`, or starts it. Rejects with the reason of `signal` as soon as that is
   * aborted. The work itself is aborted when nobody waits for it any more; the last one to leave waits until it has wound down.
   */
  async run(key: string, work: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    const entry = this.#running.get(key) ?? this.#start(key, work);
    entry.waiters += 1;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(signal?.reason);
    signal?.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([entry.result, aborted]);
    } finally {
      signal?.removeEventListener("abort", leave);
      entry.waiters -= 1;
      if (entry.waiters === 0) {
        // Whoever comes while aborted work winds down starts anew.
        if (this.#running.get(key) === entry) this.#running.delete(key);
        entry.controller.abort(signal?.reason);
        await entry.result.catch(() => {});
      }
    }
  }

  #start(key: string, work: (signal: AbortSignal) => Promise<T>) {
    const controller = new AbortController();
    const result = work(controller.signal);
    // Those who wait see the failure; without waiters nobody needs to.
    result.catch(() => {});
    const entry = { controller, result, waiters: 0 };
    this.#running.set(key, entry);
    return entry;
  }
}
