import { errnoOf } from "../contract/errors.ts";
import { MOST_LINKS, openForReading } from "./owned-file.ts";

// Escape sequences of terminals: CSI, OSC and the like up to their end, and two-byte ones.
// oxlint-disable-next-line no-control-regex
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g;

/** Makes text that a guest wrote fit to be shown: no escapes, no control characters but newline and tab, nothing invisible. */
export function harmless(text: string): string {
  return text
    .replaceAll(ESCAPES, "")
    .replaceAll(/\r+\n/g, "\n")
    .replaceAll("\r", "\n")
    .replaceAll(/[^\P{C}\n\t]/gu, "");
}

/**
 * The last `maxBytes` bytes of a file that a VMM wrote, made harmless. Empty when there is none,
 * or when it is not the regular file that was made for the VMM.
 */
export async function tailOf(path: string, maxBytes: number): Promise<string> {
  try {
    await using handle = await openForReading(path);
    const { size, nlink } = await handle.stat();
    if (nlink > MOST_LINKS) return "";
    const length = Math.min(size, maxBytes);
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await handle.read(bytes, 0, length, size - length);
    let start = 0;
    // A character that the cut went through is left out.
    if (length < size) while (((bytes[start] ?? 0) & 0xc0) === 0x80) start += 1;
    return harmless(bytes.subarray(start, bytesRead).toString("utf8"));
  } catch (error) {
    const errno = errnoOf(error);
    // ELOOP and ENXIO: a link or a pipe stands there.
    if (errno === "ENOENT" || errno === "ELOOP" || errno === "ENXIO") return "";
    throw error;
  }
}
