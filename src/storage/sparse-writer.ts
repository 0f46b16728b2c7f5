import { type Hash, createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";

/** The grain of holes: a page of the guest, and a block of the usual filesystems. */
const GRAIN = 4096;
const ZEROS = Buffer.alloc(GRAIN);

function isZero(bytes: Uint8Array): boolean {
  return ZEROS.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;
}

/** The runs of `bytes`, which belong at `at`, that are not zero: `from` up to, but not with, `to`, in whole grains of the file. */
function* runs(bytes: Uint8Array, at: number): Generator<{ from: number; to: number }> {
  let begin: number | undefined;
  for (let from = 0; from < bytes.length; ) {
    const to = Math.min(bytes.length, from + GRAIN - ((at + from) % GRAIN));
    if (!isZero(bytes.subarray(from, to))) begin ??= from;
    else if (begin !== undefined) {
      yield { from: begin, to: from };
      begin = undefined;
    }
    from = to;
  }
  if (begin !== undefined) yield { from: begin, to: bytes.length };
}

/** Writes a stream into a file, hashes it on the way and leaves holes where it is zero. */
export class SparseWriter {
  readonly #handle: FileHandle;
  #hash: Hash = createHash("sha256");
  #length = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** Bytes taken in so far. */
  get length(): number {
    return this.#length;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes);
    for (const { from, to } of runs(bytes, this.#length)) {
      for (let done = from; done < to; ) {
        const { bytesWritten } = await this.#handle.write(bytes, done, to - done, this.#length + done);
        done += bytesWritten;
      }
    }
    this.#length += bytes.length;
  }

  /** Begins anew with an empty file. */
  async reset(): Promise<void> {
    this.#hash = createHash("sha256");
    this.#length = 0;
    await this.#handle.truncate(0);
  }

  /** Gives the file its length (its end may be a hole) and returns its digest. */
  async finish(): Promise<{ sha256: string; size_bytes: number }> {
    await this.#handle.truncate(this.#length);
    return { sha256: this.#hash.digest("hex"), size_bytes: this.#length };
  }
}
