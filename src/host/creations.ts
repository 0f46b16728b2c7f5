import type { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";

/** Creates, restores and starts that are under way or wait for their turn: what a delete, or the daemon's end, breaks off. */
export class Creations {
  readonly #controllers = new Map<AbortController, MachineId>();

  /** Enters one, until the returned holder is disposed. Its signal is aborted when it shall end. */
  enter(id: MachineId): Disposable & { readonly signal: AbortSignal } {
    const controller = new AbortController();
    this.#controllers.set(controller, id);
    return {
      signal: controller.signal,
      [Symbol.dispose]: () => {
        this.#controllers.delete(controller);
      },
    };
  }

  /** Breaks off those of the machine `id`, or all. */
  end(reason: AppError, id?: MachineId): void {
    for (const [controller, made] of this.#controllers) {
      if (id === undefined || made === id) controller.abort(reason);
    }
  }
}
