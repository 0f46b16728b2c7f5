import type { Socket } from "node:net";
import { isAlive, type ProcessIdentity } from "../system/process.ts";

/** A VMM that closed the connection is most likely dying: looked at soon, and ever less often. */
const FIRST_LOOK_MS = 2;
/** The connection tells of a death at once; this catches one whose connection somebody else keeps open. */
const SLOWEST_LOOK_MS = 5000;

/** Notices the death of one VMM: by the end of an idle connection to its API, and by looking at its process. */
export class DeathWatch {
  readonly #process: ProcessIdentity;
  readonly #gone = new AbortController();
  readonly #connection: Socket;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  /** `connection` is a new one to the VMM's API, and from now on the watch's. */
  constructor(process: ProcessIdentity, connection: Socket) {
    this.#process = process;
    this.#connection = connection;
    // A VMM says nothing unasked. One that does is not listened to, it is only looked at.
    connection.on("data", () => connection.destroy());
    connection.once("close", () => this.#look(FIRST_LOOK_MS));
    connection.unref();
    this.#later(connection.destroyed ? FIRST_LOOK_MS : SLOWEST_LOOK_MS);
  }

  /** Aborted once the process is dead; never after `stop`. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Looks now. Returns true when the process is dead, and then `gone` is aborted. */
  check(): boolean {
    if (isAlive(this.#process)) return false;
    if (!this.#stopped && !this.#gone.signal.aborted) {
      this.stop();
      this.#gone.abort(new Error(`the VMM (process ${this.#process.pid}) is gone`));
    }
    return true;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#connection.destroy();
  }

  #look(nextMs: number): void {
    if (this.#stopped || this.check()) return;
    this.#later(Math.min(nextMs, SLOWEST_LOOK_MS));
  }

  #later(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(ms * 2), ms);
    this.#timer.unref();
  }
}
