import { type FSWatcher, watch } from "node:fs";
import { join } from "node:path";
import type { Jail } from "./jail.ts";

/** The kernel may have no watch left to give: then looking again is all there is. */
const LOOK_AGAIN_MS = 50;

/**
 * Tells when files appear in a jail. Made before anything of the VMM runs, while the folders are still root's.
 * An event is only a hint to look: what is there is for the caller to check.
 */
export class JailWatch implements Disposable {
  readonly #watchers: FSWatcher[] = [];
  #wake: () => void = () => {};

  constructor(jail: Jail) {
    for (const directory of [jail.root, join(jail.root, "run")]) {
      try {
        this.#watchers.push(watch(directory, () => this.#wake()).on("error", () => {}));
      } catch {
        // See LOOK_AGAIN_MS.
      }
    }
  }

  /** Calls `look` now and at each change until it returns something. Throws what it throws, or the signal's reason. */
  async until<T>(look: () => T | undefined, signal: AbortSignal): Promise<T> {
    for (;;) {
      signal.throwIfAborted();
      const found = look();
      if (found !== undefined) return found;
      await this.#change(signal);
    }
  }

  async #change(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const timer = setTimeout(resolve, LOOK_AGAIN_MS);
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    clearTimeout(timer);
  }

  [Symbol.dispose](): void {
    for (const watcher of this.#watchers) watcher.close();
  }
}
