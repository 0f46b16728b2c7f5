import { AppError } from "../contract/errors.ts";
import type { HostContext } from "./context.ts";
import { Trace } from "./trace.ts";
import { UndoStack } from "./undo.ts";
import type { WayUp } from "./way-up.ts";

/** More at once would only wait for each other: waking a guest is work for the disk and a processor. */
const AT_ONCE = 4;

/** Machines that come up together, each on a way of its own with its own undos; what ends one ends all. */
export class Siblings {
  readonly #context: HostContext;
  readonly #trace: Trace;
  readonly #failing = new AbortController();
  readonly #signal: AbortSignal;
  readonly #undos: UndoStack[] = [];

  /** `signal` ends all of them from outside. */
  constructor(context: HostContext, trace: Trace, signal: AbortSignal) {
    this.#context = context;
    this.#trace = trace;
    this.#signal = AbortSignal.any([signal, this.#failing.signal]);
  }

  /** A way up for one more. Its steps are traced apart: those of dozens are too much for the header of one answer. */
  way(): WayUp {
    const { log } = this.#trace;
    const undo = new UndoStack(log);
    this.#undos.push(undo);
    return { context: this.#context, trace: new Trace(log), undo, signal: this.#signal };
  }

  /**
   * Does `work` for each item, a few at a time. When it fails for one, those whose turn has not come are left out, those
   * under way are told to end, and all are waited for. Returns the results in the order of the items; throws the first
   * failure.
   */
  async each<Item, Result>(items: readonly Item[], work: (item: Item) => Promise<Result>): Promise<Result[]> {
    const results: Result[] = [];
    const left = items.entries();
    let first: { readonly error: unknown } | undefined;
    const walk = async (): Promise<void> => {
      for (const [index, item] of left) {
        try {
          this.#signal.throwIfAborted();
          results[index] = await work(item);
        } catch (error) {
          first ??= { error };
          this.#failing.abort(
            new AppError("operation_cancelled", "a machine that was made together with this one failed"),
          );
          return;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, walk));
    if (first !== undefined) throw first.error;
    return results;
  }

  /** Undoes what was done for each, all at once. Throws when not all of it could be undone; the log says what. */
  async unwind(cause: unknown): Promise<void> {
    const failed = (await Promise.all(this.#undos.map((undo) => undo.unwind(cause)))).flat();
    if (failed.length > 0) throw new Error(`not undone: ${failed.join(", ")}`);
  }
}
