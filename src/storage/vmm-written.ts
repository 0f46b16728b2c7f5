import type { FileHandle } from "node:fs/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import { run } from "../system/run.ts";
import { type Cloner, reflink } from "./clone.ts";
import { digestInThread } from "./digest-thread.ts";
import type { FileDigest } from "./digest.ts";
import { MOST_LINKS, createFile, openForReading } from "./owned-file.ts";
import { sealFile } from "./seal.ts";

const DIG_TIMEOUT_MS = 10 * 60_000;

/** What a file that a VMM wrote must be like. */
export interface Written {
  /** What it is called in errors. */
  readonly what: string;
  /** Whom it belongs to. */
  readonly uid: number;
  readonly minBytes: number;
  readonly maxBytes: number;
}

/**
 * Opens a file that a VMM wrote, after a look at what it is now: a VMM can do to it whatever its user may.
 * Throws `vmm_failed` when it is not what the VMM was asked for.
 */
export async function openWritten(
  path: string,
  expected: Written,
): Promise<AsyncDisposable & { readonly handle: FileHandle; readonly size: number }> {
  await using undo = new AsyncDisposableStack();
  const handle = undo.use(await open(path, expected));
  const { uid, nlink, size } = await handle.stat();
  if (uid !== expected.uid) throw unexpected(expected, `it belongs to uid ${uid}, not ${expected.uid}`);
  if (nlink > MOST_LINKS) throw unexpected(expected, `it has ${nlink} names`);
  if (size < expected.minBytes || size > expected.maxBytes) {
    throw unexpected(expected, `it has ${size} bytes, and should have ${lengthText(expected)}`);
  }
  const kept = undo.move();
  return { handle, size, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

function lengthText({ minBytes, maxBytes }: Written): string {
  return minBytes === maxBytes ? `${minBytes}` : `between ${minBytes} and ${maxBytes}`;
}

async function open(path: string, expected: Written): Promise<FileHandle> {
  try {
    return await openForReading(path);
  } catch (cause) {
    const errno = errnoOf(cause);
    // Without a code it was opened and is no regular file.
    if (errno === undefined || errno === "ELOOP" || errno === "ENXIO" || errno === "ENOENT")
      throw unexpected(expected, "it is no regular file", cause);
    throw cause;
  }
}

function unexpected({ what }: Written, problem: string, cause?: unknown): AppError {
  return new AppError("vmm_failed", `The VMM did not write ${what} as it should: ${problem}.`, {
    details: { file: what, problem },
    cause,
  });
}

/**
 * Copies a file that a VMM wrote to `target`, a new file, 0444 and root's, with holes for zeros; returns the copy's
 * digest. The VMM may hold the original open for longer than anybody can see. Throws as `openWritten`, and `vmm_failed`
 * when the file's length changed meanwhile.
 */
export async function copyWritten(
  cloner: Cloner,
  path: string,
  target: string,
  expected: Written,
): Promise<FileDigest> {
  await using written = await openWritten(path, expected);
  const digest = await copy(cloner, written, target);
  if (digest.size_bytes !== written.size)
    throw unexpected(expected, "its length changed while it was copied");
  return digest;
}

async function copy(
  { mode }: Cloner,
  { handle, size }: { readonly handle: FileHandle; readonly size: number },
  target: string,
): Promise<FileDigest> {
  // By its descriptor: what was looked at is what is cloned.
  if (mode === "reflink" && (await reflink(`/proc/self/fd/${handle.fd}`, target))) {
    await run(["fallocate", "--dig-holes", target], { timeoutMs: DIG_TIMEOUT_MS });
    return sealFile(target);
  }
  await using sparse = await createFile(target, 0o444);
  const digest = await digestInThread({ source: handle.fd, length: size, target: sparse.fd });
  await sparse.sync();
  return digest;
}
