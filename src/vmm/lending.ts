import { link, unlink } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errnoOf, isDiskFull } from "../contract/errors.ts";
import type { JailFile } from "./types.ts";

/**
 * Hard-links `files` into the jail of a VMM that runs, until what is returned is disposed. All of them or none.
 *
 * The jail belongs to the VMM's user, who may have put anything in the place of a name. A hard link is made only where
 * nothing is, and neither making nor removing one follows a link in the last part of its path; the folders above belong
 * to root. What is there by the name goes first, unless it is a folder. Throws `vmm_failed` when something is in the way,
 * `disk_full`.
 */
export async function lend(root: string, files: readonly JailFile[]): Promise<AsyncDisposable> {
  await using undo = new AsyncDisposableStack();
  for (const { source, path } of files) {
    try {
      // A loan that could not be taken back, or that a killed daemon left, must not keep later ones from being made.
      await takeBack(root, path);
      await link(source, join(root, path));
    } catch (cause) {
      if (errnoOf(cause) === "EEXIST")
        throw new AppError("vmm_failed", `Something lies in the way at ${path} in the VMM's jail.`, {
          cause,
        });
      if (isDiskFull(cause))
        throw new AppError("disk_full", "There is no room left to lend a file to the VMM.", { cause });
      throw cause;
    }
    undo.defer(async () => await takeBack(root, path));
  }
  return undo.move();
}

/** Removes the name `path` from the jail. A folder that the VMM put there stays: it goes with the jail. */
export async function takeBack(root: string, path: string): Promise<void> {
  try {
    await unlink(join(root, path));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "EISDIR") throw error;
  }
}
