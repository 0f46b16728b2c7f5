/** QEMU's monitor: JSON lines, one command at a time, events in between. */
import type { Duplex } from "node:stream";

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** QEMU refused a command, or went away before it answered. */
export class QmpError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "QmpError";
  }
}

interface Waiter {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: QmpError) => void;
}

export class Qmp {
  readonly #stream: Duplex;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #waiters: Waiter[] = [];
  readonly #greeting = Promise.withResolvers<unknown>();
  #closed = false;
  #line = "";

  constructor(stream: Duplex, onEvent: (event: QmpEvent) => void) {
    this.#stream = stream;
    this.#onEvent = onEvent;
    // Nobody may be waiting for the greeting when QEMU dies; that must not end this process.
    this.#greeting.promise.catch(() => undefined);
    stream.on("error", () => this.#close());
    stream.on("close", () => this.#close());
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      const lines = (this.#line + text).split("\n");
      this.#line = lines.pop() ?? "";
      for (const line of lines) this.#receive(line);
    });
  }

  /** Waits for QEMU to say hello and leaves the negotiation. Throws QmpError. */
  async connect(): Promise<void> {
    await this.#greeting.promise;
    await this.execute("qmp_capabilities");
  }

  /** Runs one command and returns its answer. Throws QmpError with QEMU's own words. */
  async execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#closed) throw new QmpError("QEMU is gone");
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiters.push({ resolve, reject });
    this.#stream.write(`${JSON.stringify({ execute: command, ...(args && { arguments: args }) })}\n`);
    return await promise;
  }

  #receive(line: string): void {
    const message: unknown = JSON.parse(line);
    if (typeof message !== "object" || message === null) return;
    if ("event" in message && typeof message.event === "string") {
      const data = "data" in message && isObject(message.data) ? message.data : {};
      this.#onEvent({ event: message.event, data });
    } else if ("return" in message) {
      this.#waiters.shift()?.resolve(message.return);
    } else if ("error" in message) {
      const words = isObject(message.error) ? message.error["desc"] : undefined;
      this.#waiters.shift()?.reject(new QmpError(typeof words === "string" ? words : line));
    } else if ("QMP" in message) {
      this.#greeting.resolve(message.QMP);
    }
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const error = new QmpError("QEMU is gone");
    this.#greeting.reject(error);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
