import { type LookupAddress, type LookupOptions, lookup } from "node:dns";
import { isIP } from "node:net";
import { Agent, type Dispatcher } from "undici";
import { AppError } from "../contract/errors.ts";
import { isInsideAddress } from "./addresses.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 30_000;
/** The longest silence within a body. */
const BODY_TIMEOUT_MS = 30_000;

type LookupCallback = (
  error: NodeJS.ErrnoException | null,
  address: string | LookupAddress[],
  family?: number,
) => void;

/**
 * The connections of one fetch. Its first URL is the client's word and may lead anywhere. If that was outside, redirects
 * are a foreign server's word and must stay outside; they are judged by the address that is connected to, not by the name.
 */
export class Outbound implements AsyncDisposable {
  readonly #agent: Agent;
  readonly #isInside: (address: string) => boolean;
  #firstWasInside = false;
  #redirected = false;

  constructor(isInside: (address: string) => boolean = isInsideAddress) {
    this.#isInside = isInside;
    this.#agent = new Agent({
      connections: 2,
      headersTimeout: HEADERS_TIMEOUT_MS,
      bodyTimeout: BODY_TIMEOUT_MS,
      connect: {
        timeout: CONNECT_TIMEOUT_MS,
        lookup: (hostname: string, options: LookupOptions, callback: LookupCallback) =>
          this.#lookup(hostname, options, callback),
      },
    });
  }

  /** Makes the request for `url`; `redirected` says that a server led to it. Throws `artifact_refused` when it leads inside. */
  async request(
    url: URL,
    redirected: boolean,
    headers: Record<string, string>,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    this.#redirected = redirected;
    // An address in the URL is never looked up.
    const literal = url.hostname.replace(/^\[(.*)\]$/, "$1");
    if (isIP(literal) !== 0) this.#judge([literal]);
    return this.#agent.request({
      origin: url.origin,
      path: `${url.pathname}${url.search}`,
      method: "GET",
      headers,
      signal,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  #judge(addresses: readonly string[]): void {
    const inside = addresses.some((address) => this.#isInside(address));
    if (!this.#redirected) this.#firstWasInside ||= inside;
    else if (inside && !this.#firstWasInside) {
      throw new AppError(
        "artifact_refused",
        "The artifact's server redirects to an address inside the host's networks.",
      );
    }
  }

  #lookup(hostname: string, options: LookupOptions, callback: LookupCallback): void {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) {
        callback(error, []);
        return;
      }
      try {
        this.#judge(found.map(({ address }) => address));
      } catch (refused) {
        callback(refused instanceof Error ? refused : new Error(String(refused)), []);
        return;
      }
      const [first] = found;
      if (options.all === true || first === undefined) callback(null, found);
      else callback(null, first.address, first.family);
    });
  }
}
