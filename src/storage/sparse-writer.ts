import { type Hash, createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";

const ZEROS = Buffer.alloc(64 * 1024);

function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const piece = bytes.subarray(at, at + ZEROS.length);
    if (ZEROS.compare(piece, 0, piece.length, 0, piece.length) !== 0) return false;
  }
  return true;
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
    if (!isZero(bytes)) {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(
          bytes,
          done,
          bytes.length - done,
          this.#length + done,
        );
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
