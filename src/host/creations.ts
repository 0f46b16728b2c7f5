import type { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";

/**
 * Work that takes long and can be broken off: machines that come up or wait for their turn, which a delete of theirs
 * ends, and what is no single machine's, such as an upload. The daemon's end ends all.
 */
export class Creations {
  readonly #controllers = new Map<AbortController, MachineId | undefined>();

  /** Enters one, until the returned holder is disposed. Its signal is aborted when it shall end. */
  enter(id?: MachineId): Disposable & { readonly signal: AbortSignal } {
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
