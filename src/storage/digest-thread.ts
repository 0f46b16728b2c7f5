import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import type { FileDigest } from "./digest.ts";

/** What the thread is given: descriptors of this process. */
export interface DigestJob {
  readonly source: number;
  /** How many bytes are read at most. */
  readonly length: number;
  /** A new, empty file that becomes a copy with holes for zeros. */
  readonly target?: number | undefined;
}

/** Hashing takes a whole core: no more of them at a time than leave the host's guests alone. */
const AT_ONCE = 2;
/** A program of its own beside this one: a source of the checkout, or a bundle beside the daemon's. */
const WORKER = new URL(`digest-worker${extname(import.meta.url)}`, import.meta.url);
let running = 0;
const waiting: (() => void)[] = [];

/**
 * Hashes an open file, and copies it into `target` on the way, in a thread of its own: gigabytes of memory must not
 * hold the daemon's other work up. The caller keeps both files open. Throws what reading or writing threw, with its code.
 */
export async function digestInThread(job: DigestJob): Promise<FileDigest> {
  if (running >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  else running += 1;
  try {
    return await runThread(job);
  } finally {
    // The place goes to the next one, if one waits.
    const next = waiting.shift();
    if (next === undefined) running -= 1;
    else next();
  }
}

function runThread(job: DigestJob): Promise<FileDigest> {
  const { promise, resolve, reject } = Promise.withResolvers<FileDigest>();
  const thread = new Worker(WORKER, { workerData: job });
  thread.once("message", (digest: FileDigest) => resolve(digest));
  thread.once("error", reject);
  thread.once("exit", (code) => reject(new Error(`The hashing thread ended with ${code} and no answer.`)));
  return promise;
}
