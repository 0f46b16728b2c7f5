import { stat } from "node:fs/promises";
import { errnoOf } from "../contract/errors.ts";

/** A file that has the same fingerprint as before was not written to since: reading it again would tell nothing new. */
export async function fingerprintOf(path: string): Promise<string | undefined> {
  try {
    return fingerprint(await stat(path, { bigint: true }));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return undefined;
    throw error;
  }
}

/** The fingerprint in the status of a file. The change time is in it because a modification time can be set back. */
export function fingerprint(stats: {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}): string {
  return [stats.dev, stats.ino, stats.size, stats.mtimeNs, stats.ctimeNs].join(":");
}
