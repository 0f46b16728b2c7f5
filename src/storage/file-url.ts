import { constants } from "node:fs";
import { type FileHandle, open, readlink, realpath } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { AppError, errnoOf, messageOf } from "../contract/errors.ts";
import { fingerprint } from "./fingerprint.ts";

/** A file that a client named by URL, open. */
export interface OpenedFile extends AsyncDisposable {
  /** A path that leads to this very file, whatever its name stands for by now; other processes can use it too. */
  readonly path: string;
  readonly fingerprint: string;
  readonly size_bytes: number;
}

function refused(url: URL, why: string): AppError {
  return new AppError("artifact_refused", `${url.href} is refused: ${why}.`);
}

function isBelow(path: string, dirs: readonly string[]): boolean {
  return dirs.some((dir) => path.startsWith(dir === "/" ? "/" : `${dir}/`));
}

/** The path in a file URL. Throws `artifact_refused` unless it is written as below one of `dirs`. */
export function filePathOf(url: URL, dirs: readonly string[]): string {
  let path: string;
  try {
    path = fileURLToPath(url);
  } catch (error) {
    throw refused(url, messageOf(error));
  }
  const allowed = dirs.map((dir) => resolve(dir));
  if (path.includes("\0") || !isBelow(path, allowed)) {
    throw refused(
      url,
      `file URLs are taken only from ${allowed.join(", ") || "nowhere"} (FIRECRACKER_HOST_FILE_URL_DIRS)`,
    );
  }
  return path;
}

/**
 * Opens the file of a file URL. Where it really lies is asked of the open descriptor, so that a link that is
 * exchanged meanwhile gains nothing. Throws `artifact_refused`, `artifact_unavailable`.
 */
export async function openFileUrl(url: URL, dirs: readonly string[]): Promise<OpenedFile> {
  const path = filePathOf(url, dirs);
  const allowed = await Promise.all(dirs.map((dir) => realpath(dir).catch(() => resolve(dir))));
  let handle: FileHandle;
  try {
    const real = await realpath(path);
    if (!isBelow(real, allowed)) throw refused(url, "it leads out of the folders that are allowed");
    handle = await open(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError(
      "artifact_unavailable",
      `${url.href} cannot be opened (${errnoOf(error) ?? messageOf(error)}).`,
      {
        cause: error,
      },
    );
  }
  try {
    const stats = await handle.stat({ bigint: true });
    if (!stats.isFile()) throw refused(url, "it is not a regular file");
    if (!isBelow(await readlink(`/proc/self/fd/${handle.fd}`), allowed)) {
      throw refused(url, "it leads out of the folders that are allowed");
    }
    return {
      path: `/proc/${process.pid}/fd/${handle.fd}`,
      fingerprint: fingerprint(stats),
      size_bytes: Number(stats.size),
      [Symbol.asyncDispose]: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}
