import { messageOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import { sideBySide } from "../system/side-by-side.ts";
import type { HostContext } from "./context.ts";

/** A VMM's own limits let a log grow by less than a mebibyte a minute; its bound leaves room for many. */
const ROUND_MS = 60_000;
/** So that a look at a thousand machines neither takes the disk nor the event loop for itself. */
const AT_ONCE = 4;

/** Looks now and then that no running machine's logs fill the disk: a round in a minute, however often it is asked. */
export class LogRounds {
  readonly #context: HostContext;
  #last: number | undefined;
  #under = false;

  constructor(context: HostContext) {
    this.#context = context;
  }

  /** Makes a round if it is time to and none is under way. Resolves when it is over; a failure is in the log. */
  async turn(now: number = performance.now()): Promise<void> {
    this.#last ??= now;
    if (this.#under || now - this.#last < ROUND_MS) return;
    this.#last = now;
    this.#under = true;
    try {
      await sideBySide(this.#context.live.keys(), AT_ONCE, (id) => this.#bound(id));
    } finally {
      this.#under = false;
    }
  }

  async #bound(id: MachineId): Promise<void> {
    const { live, storage, log } = this.#context;
    if (!live.has(id)) return;
    try {
      await storage.boundLogs(id);
    } catch (error) {
      // One that was deleted meanwhile has none.
      if (live.has(id)) log.warn({ machine_id: id, reason: messageOf(error) }, "logs could not be bounded");
    }
  }
}
