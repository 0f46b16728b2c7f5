import { setTimeout as sleep } from "node:timers/promises";
import type { Dispatcher } from "undici";
import { AppError, errnoOf, messageOf } from "../contract/errors.ts";
import type { FileDigest } from "./digest.ts";
import { diskFull } from "./errors.ts";
import { Outbound } from "./outbound.ts";
import type { SparseWriter } from "./sparse-writer.ts";

/** By what a server recognises a version of a file. */
export interface Validators {
  readonly etag?: string | undefined;
  readonly last_modified?: string | undefined;
}

export interface DownloadOptions {
  readonly maxBytes: number;
  /** What is thrown for a larger file; `artifact_refused` unless given. */
  readonly tooLarge?: ((maxBytes: number) => AppError) | undefined;
  /** Room that is there, in bytes. */
  readonly freeBytes: number;
  /** The version that we have already: the answer may be that it is still the same. */
  readonly have?: Validators | undefined;
  /** A digest is known and will be checked: then the rest of a file may be fetched from a server without validators. */
  readonly checkedLater: boolean;
  readonly isInside?: ((address: string) => boolean) | undefined;
  /** First pause before another try; it doubles. */
  readonly backoffMs?: number | undefined;
  readonly signal: AbortSignal;
}

export type Downloaded =
  | { readonly unchanged: true }
  | ({ readonly unchanged: false } & FileDigest & Validators);

const MOST_REDIRECTS = 5;
const MOST_TRIES = 6;
const BACKOFF_MS = 200;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Answers after which it is worth to ask again. */
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);

/** A transfer that broke, or an answer that may be another one next time. */
class BrokenTransfer extends Error {}

function unavailable(url: URL, what: string, cause?: unknown): AppError {
  // Without the query, which may be somebody's signature.
  return new AppError("artifact_unavailable", `${url.origin}${url.pathname} could not be fetched: ${what}.`, {
    cause,
  });
}

function headerOf(response: Dispatcher.ResponseData, name: string): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/**
 * Fetches `url` into `writer`: redirects are followed a few times, a transfer that breaks goes on where it broke if the
 * server still has the same version, otherwise from the start; a few tries in all, each wait bounded.
 * Throws `artifact_unavailable`, `artifact_refused` (too large, or led inside), `disk_full`, or the signal's reason.
 */
export async function download(
  url: URL,
  writer: SparseWriter,
  options: DownloadOptions,
): Promise<Downloaded> {
  await using outbound = new Outbound(options.isInside);
  let partial: Validators = {};
  for (let tries = 1; ; tries += 1) {
    try {
      const headers = requestHeaders(writer.length, partial, options);
      const response = await follow(outbound, url, headers, options.signal);
      if (response.statusCode === 304 && options.have !== undefined) {
        await discard(response);
        return { unchanged: true };
      }
      const total = await beginBody(url, response, writer, options);
      partial = { etag: headerOf(response, "etag"), last_modified: headerOf(response, "last-modified") };
      await takeBody(response, writer, options);
      if (total !== undefined && writer.length !== total) {
        throw new BrokenTransfer(`it ended after ${writer.length} of ${total} bytes`);
      }
      return { unchanged: false, ...(await writer.finish()), ...partial };
    } catch (error) {
      options.signal.throwIfAborted();
      if (error instanceof AppError) throw error;
      if (isLocal(error)) throw error;
      if (tries === MOST_TRIES) throw unavailable(url, messageOf(error), error);
      if (!canResume(partial, options)) await writer.reset();
      await sleep((options.backoffMs ?? BACKOFF_MS) * 2 ** (tries - 1), undefined, {
        signal: options.signal,
      });
    }
  }
}

/** Errors of our own disk are not the server's: another try would not help. */
function isLocal(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno !== undefined && ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG"].includes(errno);
}

/** Lets go of a body that nobody reads. That it breaks meanwhile tells nothing new. */
async function discard(response: Dispatcher.ResponseData): Promise<void> {
  await response.body.dump().catch(() => {});
}

/** What `If-Range` may name: a weak tag does not promise the same bytes. */
function rangeValidator({ etag, last_modified }: Validators): string | undefined {
  return etag !== undefined && !etag.startsWith("W/") ? etag : last_modified;
}

function canResume(partial: Validators, options: DownloadOptions): boolean {
  return options.checkedLater || rangeValidator(partial) !== undefined;
}

function requestHeaders(done: number, partial: Validators, options: DownloadOptions): Record<string, string> {
  const headers: Record<string, string> = { "accept-encoding": "identity", "user-agent": "computer-host" };
  if (done > 0) {
    headers.range = `bytes=${done}-`;
    const validator = rangeValidator(partial);
    if (validator !== undefined) headers["if-range"] = validator;
    return headers;
  }
  if (options.have?.etag !== undefined) headers["if-none-match"] = options.have.etag;
  else if (options.have?.last_modified !== undefined)
    headers["if-modified-since"] = options.have.last_modified;
  return headers;
}

/** The answer at the end of the redirects. */
async function follow(
  outbound: Outbound,
  first: URL,
  headers: Record<string, string>,
  signal: AbortSignal,
): Promise<Dispatcher.ResponseData> {
  let url = first;
  for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects += 1) {
    const response = await outbound.request(url, redirects > 0, headers, signal);
    if (!REDIRECTS.has(response.statusCode)) return response;
    await discard(response);
    const location = headerOf(response, "location");
    if (location === undefined || !URL.canParse(location, url))
      throw unavailable(url, "it redirects to nowhere");
    const next = new URL(location, url);
    const isHttp = next.protocol === "https:" || (next.protocol === "http:" && url.protocol === "http:");
    if (!isHttp) {
      throw new AppError(
        "artifact_refused",
        `The artifact's server redirects from ${url.protocol} to ${next.protocol}.`,
      );
    }
    url = next;
  }
  throw unavailable(first, `it redirects more than ${MOST_REDIRECTS} times`);
}

/** Checks the head of an answer and puts the writer where its body belongs. Returns the length of the whole file, if told. */
async function beginBody(
  url: URL,
  response: Dispatcher.ResponseData,
  writer: SparseWriter,
  options: DownloadOptions,
): Promise<number | undefined> {
  const { statusCode } = response;
  const failed = async (error: Error): Promise<never> => {
    await discard(response);
    throw error;
  };
  if (statusCode === 416) {
    await writer.reset();
    return failed(new BrokenTransfer("the server does not have the rest"));
  }
  if (PASSING.has(statusCode)) return failed(new BrokenTransfer(`the server answers ${statusCode}`));
  if (statusCode !== 200 && statusCode !== 206)
    return failed(unavailable(url, `the server answers ${statusCode}`));
  const encoding = headerOf(response, "content-encoding");
  if (encoding !== undefined && encoding !== "identity") {
    return failed(unavailable(url, `the server sends it encoded as ${encoding}`));
  }
  const lengthText = headerOf(response, "content-length");
  const length = lengthText === undefined ? undefined : Number(lengthText);
  if (statusCode === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headerOf(response, "content-range") ?? "");
    if (writer.length === 0 || Number(range?.[1]) !== writer.length) {
      await writer.reset();
      return failed(new BrokenTransfer("the server sent another part than was asked for"));
    }
  } else if (writer.length > 0) {
    await writer.reset();
  }
  if (length === undefined) return undefined;
  const total = writer.length + length;
  if (total > options.maxBytes) return failed(tooLarge(options));
  if (length > options.freeBytes) return failed(diskFull());
  return total;
}

function tooLarge({ maxBytes, tooLarge: given }: DownloadOptions): AppError {
  return (
    given?.(maxBytes) ??
    new AppError(
      "artifact_refused",
      `The artifact is larger than ${maxBytes} bytes, the largest that is fetched.`,
    )
  );
}

async function takeBody(
  response: Dispatcher.ResponseData,
  writer: SparseWriter,
  options: DownloadOptions,
): Promise<void> {
  for await (const chunk of response.body) {
    const bytes: unknown = chunk;
    if (!(bytes instanceof Uint8Array)) throw new TypeError("a body that is not bytes");
    if (writer.length + bytes.length > options.maxBytes) throw tooLarge(options);
    await writer.write(bytes);
  }
}
