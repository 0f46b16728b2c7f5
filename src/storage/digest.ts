import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { digestInThread } from "./digest-thread.ts";
import { openForReading } from "./owned-file.ts";

export interface FileDigest {
  readonly sha256: string;
  readonly size_bytes: number;
}

/** Small enough that hashing one piece (0.6 ms) does not hold up the daemon's other work. */
const PIECE = 512 * 1024;

/** SHA-256 of bytes as 64 hex digits. */
export function sha256Of(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** SHA-256 and length of a regular file. Throws the signal's reason when aborted. */
export async function digestFile(path: string, signal?: AbortSignal): Promise<FileDigest> {
  await using handle = await openForReading(path);
  return await digestHandle(handle, signal);
}

async function digestHandle(handle: FileHandle, signal?: AbortSignal): Promise<FileDigest> {
  const hash = createHash("sha256");
  // One piece is read while the one before it is hashed.
  let [current, next] = [Buffer.allocUnsafe(PIECE), Buffer.allocUnsafe(PIECE)];
  let size = 0;
  let { bytesRead } = await handle.read(current, 0, PIECE, 0);
  while (bytesRead > 0) {
    signal?.throwIfAborted();
    size += bytesRead;
    const reading = handle.read(next, 0, PIECE, size);
    hash.update(current.subarray(0, bytesRead));
    ({ bytesRead } = await reading);
    [current, next] = [next, current];
  }
  return { sha256: hash.digest("hex"), size_bytes: size };
}

/** Below this a thread costs more than it spares. */
const WORTH_A_THREAD = 8 * 1024 * 1024;

/** SHA-256 and length of an open file, the longer ones off the event loop. */
export async function digestOpenFile(handle: FileHandle): Promise<FileDigest> {
  const { size } = await handle.stat();
  if (size >= WORTH_A_THREAD) return digestInThread({ source: handle.fd, length: size });
  return digestHandle(handle);
}
