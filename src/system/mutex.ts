/** One holder at a time for each key; those that wait are served in the order they came. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<void>>();

  /** Waits for its turn on `key` and returns a holder: `using lock = await mutex.acquire(id)`. */
  async acquire(key: string): Promise<Disposable> {
    const before = this.#tails.get(key);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#tails.set(key, promise);
    await before;
    return {
      [Symbol.dispose]: () => {
        if (this.#tails.get(key) === promise) this.#tails.delete(key);
        resolve();
      },
    };
  }

  /** True while somebody holds `key`. */
  isHeld(key: string): boolean {
    return this.#tails.has(key);
  }
}
