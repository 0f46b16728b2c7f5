import { constants } from "node:fs";
import { open } from "node:fs/promises";

const TAIL_BYTES = 4096;

/**
 * The last lines of a file that a VMM wrote, as printable text; empty when there are none.
 * The content is the VMM's: bounded, no links followed, never a pipe that blocks.
 */
export async function readLogTail(path: string): Promise<string> {
  try {
    await using handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = await handle.stat();
    if (!stat.isFile()) return "";
    const length = Math.min(stat.size, TAIL_BYTES);
    const { buffer, bytesRead } = await handle.read({
      buffer: Buffer.alloc(length),
      position: stat.size - length,
    });
    return printable(buffer.toString("utf8", 0, bytesRead));
  } catch {
    // It only explains another error: that it is missing must not hide that one.
    return "";
  }
}

/** The text with control characters (which could drive a terminal) replaced, without blank ends. */
export function printable(text: string): string {
  return text.replaceAll(/[^\P{C}\n\t]/gu, "\uFFFD").trim();
}
