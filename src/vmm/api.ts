import { Client, type Dispatcher } from "undici";
import { AppError, messageOf } from "../contract/errors.ts";
import { printable } from "./log-tail.ts";
import type { ApiSocket } from "./socket.ts";

/** Firecracker's answers are a few hundred bytes; what is larger is not an answer. */
const MAX_ANSWER_BYTES = 256 * 1024;
const MAX_SAID_LENGTH = 2000;

export interface ApiRequest {
  readonly method: "GET" | "PUT" | "PATCH";
  readonly path: string;
  readonly body?: object;
  /** How long the answer may take, in milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** Firecracker's HTTP API of one VMM: one connection, one request at a time, in order. */
export class FirecrackerApi {
  readonly #client: Client;

  constructor(socket: ApiSocket) {
    this.#client = new Client("http://localhost", {
      connect: (_options, callback) => {
        const connection = socket.connect();
        const failed = (error: Error): void => callback(error, null);
        connection.once("error", failed).once("connect", () => {
          connection.off("error", failed);
          callback(null, connection);
        });
      },
      maxResponseSize: MAX_ANSWER_BYTES,
    });
  }

  /**
   * Sends one request and returns the answer's JSON, undefined when it has no body.
   * Throws `vmm_failed` with the VMM's own words or when it broke off, `vmm_timeout`, or the signal's reason.
   */
  async send(request: ApiRequest): Promise<unknown> {
    const { method, path, body, timeoutMs, signal } = request;
    signal?.throwIfAborted();
    const call = `${method} ${path}`;
    const timeout = AbortSignal.timeout(timeoutMs);
    let status: number;
    let text: string;
    try {
      const options: Dispatcher.RequestOptions = {
        method,
        path,
        signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
        ...(body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      };
      const answer = await this.#client.request(options);
      status = answer.statusCode;
      text = await answer.body.text();
    } catch (cause) {
      if (signal?.aborted === true) throw signal.reason;
      if (timeout.aborted)
        throw new AppError("vmm_timeout", `The VMM did not answer ${call} within ${timeoutMs} ms.`, {
          details: { call },
          cause,
        });
      throw new AppError("vmm_failed", `The VMM broke off ${call}: ${messageOf(cause)}.`, {
        details: { call },
        cause,
      });
    }
    if (status < 200 || status > 299) {
      const said = wordsOf(text);
      throw new AppError("vmm_failed", `The VMM refused ${call}: ${said}`, {
        details: { call, status, said },
      });
    }
    if (text === "") return undefined;
    try {
      return JSON.parse(text) as unknown;
    } catch (cause) {
      throw new AppError("vmm_failed", `The VMM answered ${call} with something that is not JSON.`, {
        details: { call, status, said: clip(text) },
        cause,
      });
    }
  }

  /** Ends the connection, and with it whatever is under way. */
  async close(): Promise<void> {
    await this.#client.destroy();
  }
}

/**
 * What an error's body says. Firecracker writes `{"fault_message": …}`; its HTTP layer writes `{"error": …}` with a raw
 * newline inside the string, which is not JSON: then the text itself is what it says.
 */
function wordsOf(text: string): string {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null) {
      if ("fault_message" in body && typeof body.fault_message === "string") return clip(body.fault_message);
      if ("error" in body && typeof body.error === "string") return clip(body.error);
    }
  } catch {
    // Not JSON: see above.
  }
  return clip(text) || "(no words)";
}

function clip(text: string): string {
  return printable(text.slice(0, MAX_SAID_LENGTH));
}
