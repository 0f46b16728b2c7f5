import { messageOf } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";

/** `failed` names the undos, run before this one, that did not succeed; `cause` is the error that called for them. */
export type UndoStep = (failed: readonly string[], cause: unknown) => Promise<void> | void;

/**
 * The undos of an operation's steps, each registered beside its step.
 * They run newest first, each of them even when another fails, and never hide the error that called for them.
 */
export class UndoStack {
  readonly #steps: { name: string; undo: UndoStep }[] = [];
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  push(name: string, undo: UndoStep): void {
    this.#steps.push({ name, undo });
  }

  /** Forgets the undos: the operation is done. */
  commit(): void {
    this.#steps.length = 0;
  }

  /** Runs the undos. Returns the names of those that failed; each failure is in the log. */
  async unwind(cause: unknown): Promise<readonly string[]> {
    const failed: string[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo(failed, cause);
      } catch (error) {
        failed.push(step.name);
        this.#log.error({ undo: step.name, reason: messageOf(error) }, "an undo failed");
      }
    }
    return failed;
  }
}

/** Runs `steps`; when they throw, unwinds what they registered and throws their error. */
export async function withUndo<Result>(
  log: Log,
  steps: (undo: UndoStack) => Promise<Result>,
): Promise<Result> {
  const undo = new UndoStack(log);
  try {
    const result = await steps(undo);
    undo.commit();
    return result;
  } catch (error) {
    await undo.unwind(error);
    throw error;
  }
}
