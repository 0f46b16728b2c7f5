import { setTimeout as sleep } from "node:timers/promises";
import type { Dispatcher } from "undici";
import { AppError, messageOf } from "../contract/errors.ts";
import type { ReadableFile } from "./types.ts";
import type { Part } from "./upload-plan.ts";

/** The first and three more. */
const MOST_TRIES = 4;
const BACKOFF_MS = 200;
/** As much of a refusal as is read to find out what the store calls it. */
const MOST_REFUSAL_BYTES = 16 * 1024;

export interface SendOptions {
  /** First pause before another try; it doubles. */
  readonly backoffMs?: number | undefined;
  readonly signal: AbortSignal;
}

/** A failure of a try, and whether another one may go better. */
class FailedTry extends Error {
  readonly status: number | undefined;
  readonly passing: boolean;

  constructor(reason: string, options: { status?: number; passing: boolean; cause?: unknown }) {
    super(reason, { cause: options.cause });
    this.status = options.status;
    this.passing = options.passing;
  }
}

/**
 * Sends one part of a file by PUT, again a few times while it is the way there or the store's state that fails.
 * Returns the ETag header as the store wrote it, quotes included.
 * Throws `upload_failed`, `snapshot_invalid` when the file cannot be read, or the signal's reason.
 */
export async function sendPart(
  store: Dispatcher,
  part: Part,
  file: ReadableFile,
  options: SendOptions,
): Promise<string> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await put(store, part, file, options.signal);
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof FailedTry)) throw error;
      if (!error.passing || tries === MOST_TRIES) throw uploadFailed(part, error);
      await sleep((options.backoffMs ?? BACKOFF_MS) * 2 ** (tries - 1), undefined, {
        signal: options.signal,
      });
    }
  }
}

async function put(
  store: Dispatcher,
  { url, start, end }: Part,
  file: ReadableFile,
  signal: AbortSignal,
): Promise<string> {
  // A body without bytes is none: there would be nothing to stream.
  const body = end > start ? file.stream(start, end) : null;
  try {
    const response = await store.request({
      origin: url.origin,
      path: `${url.pathname}${url.search}`,
      method: "PUT",
      // No others: a signature may cover the headers.
      headers: { "content-length": String(end - start) },
      body,
      signal,
    });
    return await etagOf(response);
  } catch (error) {
    if (error instanceof AppError || error instanceof FailedTry) throw error;
    throw new FailedTry(messageOf(error), { passing: true, cause: error });
  } finally {
    // A store may answer before it has read everything.
    body?.destroy();
  }
}

/** The ETag of an answer that says the part was taken. */
async function etagOf({ statusCode: status, headers, body }: Dispatcher.ResponseData): Promise<string> {
  const passing = status >= 500 || status === 408 || status === 429;
  if (status < 200 || status >= 300) {
    const code = await refusalOf(body);
    throw new FailedTry(`the store answers ${status}${code}`, { status, passing });
  }
  await body.dump();
  const etag = headers["etag"];
  if (typeof etag === "string" && etag !== "") return etag;
  throw new FailedTry("the store's answer has no ETag", { status, passing: false });
}

/** What the store calls its refusal, such as ` (AccessDenied)`; the rest of its text repeats what was signed. */
async function refusalOf(body: Dispatcher.ResponseData["body"]): Promise<string> {
  let text = "";
  try {
    body.setEncoding("latin1");
    for await (const piece of body) {
      text += String(piece);
      if (text.length > MOST_REFUSAL_BYTES) break;
    }
  } catch {
    // That it broke off tells nothing new.
  }
  const code = /<Code>(\w{1,64})<\/Code>/.exec(text)?.[1];
  return code === undefined ? "" : ` (${code})`;
}

function uploadFailed({ artifactId, number, url }: Part, { message, status, cause }: FailedTry): AppError {
  return new AppError(
    "upload_failed",
    `Part ${number} of the artifact ${artifactId} could not be sent to ${url.origin}${url.pathname}: ${message}.`,
    {
      details: {
        artifact_id: artifactId,
        part_number: number,
        ...(status === undefined ? {} : { status }),
        reason: message,
      },
      cause,
    },
  );
}
