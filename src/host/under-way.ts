import type { Quiet } from "../model/inventory.ts";

/** The kernel's time of a file may lag behind ours by a tick. */
const MARGIN_MS = 50;

/** The work under way on this host: requests, deaths that are being recorded, tries of what failed before. */
export class UnderWay {
  readonly #works = new Set<{ readonly wall: number; readonly monotonic: number }>();
  #ended = Promise.withResolvers<void>();

  /** Counts a work until the returned holder is disposed. */
  enter(): Disposable {
    const work = { wall: Date.now(), monotonic: performance.now() };
    this.#works.add(work);
    return {
      [Symbol.dispose]: () => {
        this.#works.delete(work);
        this.#ended.resolve();
        this.#ended = Promise.withResolvers();
      },
    };
  }

  get isIdle(): boolean {
    return this.#works.size === 0;
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (!this.isIdle) await this.#ended.promise;
  }

  /** The moment before which nothing was made by work that is under way. Right when the clock steps, either way. */
  get quiet(): Quiet {
    const now = { wall: Date.now(), monotonic: performance.now() };
    let oldest = now.wall;
    for (const { wall, monotonic } of this.#works)
      oldest = Math.min(oldest, wall, now.wall - (now.monotonic - monotonic));
    return oldest - MARGIN_MS;
  }
}
