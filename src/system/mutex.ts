interface Queue {
  /** Ends with the last holder that wants to be alone. */
  alone: Promise<unknown>;
  /** Ends with everybody who came so far. */
  everybody: Promise<unknown>;
  /** Those who hold the key or wait for it. */
  members: number;
}

/** One holder at a time for each key, or several that share it; those that wait are served in the order they came. */
export class KeyedMutex {
  readonly #queues = new Map<string, Queue>();

  /** Waits until nobody else holds `key` and returns a holder: `using lock = await mutex.acquire(id)`. */
  async acquire(key: string): Promise<Disposable> {
    const { queue, holder, ended } = this.#enter(key);
    const before = queue.everybody;
    queue.alone = ended;
    queue.everybody = ended;
    await before;
    return holder;
  }

  /** The same for one of those that may hold `key` together: waits for whoever wants it alone and came before. */
  async acquireShared(key: string): Promise<Disposable> {
    const { queue, holder, ended } = this.#enter(key);
    queue.everybody = Promise.all([queue.everybody, ended]);
    await queue.alone;
    return holder;
  }

  /** True while somebody holds `key`. */
  isHeld(key: string): boolean {
    return this.#queues.has(key);
  }

  #enter(key: string): { queue: Queue; holder: Disposable; ended: Promise<void> } {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const queue = this.#queues.get(key) ?? {
      alone: Promise.resolve(),
      everybody: Promise.resolve(),
      members: 0,
    };
    this.#queues.set(key, queue);
    queue.members += 1;
    const leave = (): void => {
      queue.members -= 1;
      if (queue.members === 0) this.#queues.delete(key);
      resolve();
    };
    return { queue, holder: { [Symbol.dispose]: leave }, ended };
  }
}
