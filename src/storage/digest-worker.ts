/**
 * Runs in a thread of its own: reads a file once, hashes what it read and, where there is a
 * target, writes it there too, with holes for zeros. Descriptors are the process's, opened and checked by whoever asks.
 */
import { createHash } from "node:crypto";
import { ftruncateSync, readSync, writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import type { DigestJob } from "./digest-thread.ts";

const PIECE = 1024 * 1024;
/** The grain of holes: a page of the guest, and a block of the usual filesystems. */
const GRAIN = 4096;
const ZEROS = Buffer.alloc(PIECE);

const { source, length, target } = workerData as DigestJob;
const piece = Buffer.allocUnsafe(PIECE);
const hash = createHash("sha256");
let size = 0;
// Never beyond the length that was seen: whoever still has the file open for writing could make it longer for ever.
while (size < length) {
  const read = readSync(source, piece, 0, Math.min(PIECE, length - size), size);
  if (read === 0) break;
  hash.update(piece.subarray(0, read));
  if (target !== undefined) writeSparsely(target, read, size);
  size += read;
}
// Its end may be a hole.
if (target !== undefined) ftruncateSync(target, size);
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- this port is a thread's, no window's
parentPort?.postMessage({ sha256: hash.digest("hex"), size_bytes: size });

/** Writes the runs of grains that are not all zero, of the first `bytes` of the piece. */
function writeSparsely(file: number, bytes: number, at: number): void {
  if (isZero(0, bytes)) return;
  const end = (from: number): number => Math.min(from + GRAIN, bytes);
  for (let from = 0; from < bytes; ) {
    while (from < bytes && isZero(from, end(from))) from = end(from);
    let to = from;
    while (to < bytes && !isZero(to, end(to))) to = end(to);
    write(file, from, to, at);
    from = to;
  }
}

function isZero(from: number, to: number): boolean {
  return piece.compare(ZEROS, 0, to - from, from, to) === 0;
}

function write(file: number, from: number, to: number, at: number): void {
  for (let done = from; done < to; ) done += writeSync(file, piece, done, to - done, at + done);
}
