import { errnoOf } from "../contract/errors.ts";
import { storageError } from "./errors.ts";
import { MOST_LINKS, openForWriting } from "./owned-file.ts";

/** Room that each log of a machine (console, VMM log, metrics) may take up before it is cut. */
export const LOG_LIMIT_BYTES = 4 * 1024 * 1024;
/** How much of its end a log keeps when it is cut. */
export const LOG_KEPT_BYTES = 64 * 1024;
/** The unit of `st_blocks`. */
const STAT_BLOCK = 512;

/**
 * Cuts a log that a running VMM writes, if it takes up more room than the limit: all but its end becomes a hole. Firecracker
 * opens its logs without O_APPEND and goes on at its own offset, so the length never shrinks and room is what counts. The
 * `fsize` limit of a VMM counts the length, though: that a log cannot reach it is up to the limits on what is written.
 * Missing is fine; whatever else stands in the place of our file is left alone.
 */
export async function boundLog(path: string): Promise<void> {
  try {
    await using handle = await openForWriting(path);
    const { size, blocks, nlink } = await handle.stat();
    if (nlink > MOST_LINKS || blocks * STAT_BLOCK <= LOG_LIMIT_BYTES) return;
    const kept = Buffer.alloc(Math.min(size, LOG_KEPT_BYTES));
    const { bytesRead } = await handle.read(kept, 0, kept.length, size - kept.length);
    // What the VMM writes from here on lies behind `size`, so the end is put back without covering any of it.
    await handle.truncate(0);
    await handle.write(kept, 0, bytesRead, size - kept.length);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ELOOP" || errno === "ENXIO") return;
    throw storageError(error, "Cutting a log");
  }
}
