import { constants } from "node:fs";
import { copyFile, lstat, rm, stat, statfs } from "node:fs/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import { run } from "../system/run.ts";
import { diskFull, storageError } from "./errors.ts";
import { openForReading, openForWriting } from "./owned-file.ts";
import type { CloneMode, MadeDisk } from "./types.ts";

/** What the setting allows: `reflink` never copies, `copy` never shares blocks. */
export type CloneSetting = "auto" | CloneMode;

/** Disks are a whole number of these, so that every guest page has a block of its own. */
export const BLOCK = 4096;
const COPY_TIMEOUT_MS = 30 * 60_000;

/** Errors by which a filesystem says that it cannot share these blocks. */
const CANNOT_CLONE = new Set(["ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EINVAL", "ENOTTY", "ETXTBSY"]);

/**
 * Makes `target` share the blocks of `source` (FICLONE, in this process). Returns false, with no target left,
 * when the filesystem cannot.
 */
export async function reflink(source: string, target: string): Promise<boolean> {
  try {
    await copyFile(source, target, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
    return true;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== "EEXIST") await rm(target, { force: true });
    if (errno !== undefined && CANNOT_CLONE.has(errno)) return false;
    throw error;
  }
}

/**
 * Copies `source` and keeps its holes. One `cp` beats Node here (the kernel copies extents, 90 ms against 500 ms for
 * 130 MB), and its time does not depend on the holes. `always` also makes holes of zeros that the source has written.
 */
async function copySparsely(
  source: string,
  target: string,
  holes: "auto" | "always",
  signal?: AbortSignal,
): Promise<void> {
  const { blocks } = await stat(source);
  const hasRoom = async (): Promise<boolean> => {
    const { bavail, bsize } = await statfs(target.slice(0, target.lastIndexOf("/")));
    return bavail * bsize >= blocks * 512;
  };
  if (!(await hasRoom())) throw diskFull();
  try {
    await run(["cp", "--reflink=never", `--sparse=${holes}`, "--", source, target], {
      timeoutMs: COPY_TIMEOUT_MS,
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    // cp tells of a full disk in words only. The half copy is still there: see what is left beside it.
    const full = signal?.aborted !== true && !(await hasRoom());
    await rm(target, { force: true });
    throw full ? diskFull(error) : error;
  }
}

/** Clones files within the daemon's filesystem in the way that was found out at start. */
export class Cloner {
  readonly mode: CloneMode;
  readonly #setting: CloneSetting;

  constructor(mode: CloneMode, setting: CloneSetting) {
    this.mode = mode;
    this.#setting = setting;
  }

  /**
   * Makes `target`, a new file, with the content of `source`, a file of ours: a link in its place is not followed. Returns
   * in which way.
   * Throws `clone_refused` when these two files cannot share blocks and the setting forbids to copy, `disk_full`.
   */
  async clone(source: string, target: string, signal?: AbortSignal): Promise<CloneMode> {
    await using handle = await openForReading(source);
    // By its descriptor, which another process can use, too.
    const opened = `/proc/${process.pid}/fd/${handle.fd}`;
    if (this.mode === "reflink") {
      if (await reflink(opened, target)) return "reflink";
      if (this.#setting === "reflink") {
        throw new AppError(
          "clone_refused",
          `${source} cannot be cloned by reference, and the settings forbid to copy it.`,
        );
      }
    }
    await copySparsely(opened, target, "auto", signal);
    return "copy";
  }

  /** Makes `target` from a file that may lie on another filesystem: by reference if that works, as a sparse copy if not. */
  async bringIn(source: string, target: string, signal?: AbortSignal): Promise<void> {
    if (this.#setting !== "copy" && (await reflink(source, target))) return;
    await copySparsely(source, target, "always", signal);
  }

  /**
   * Clones a disk and makes it `sizeBytes` long, or as long as its source, rounded up to 4096 bytes; mode 0600, root's.
   * Throws `disk_too_small` when that is shorter than the source.
   */
  async cloneDisk(source: string, target: string, sizeBytes: number | undefined): Promise<MadeDisk> {
    const { size } = await lstat(source);
    if (sizeBytes !== undefined && sizeBytes < size) {
      throw new AppError(
        "disk_too_small",
        `storage_bytes is ${sizeBytes}, but the disk it is made from has ${size} bytes.`,
        { details: { storage_bytes: sizeBytes, minimum_bytes: size } },
      );
    }
    const wanted = Math.ceil((sizeBytes ?? size) / BLOCK) * BLOCK;
    try {
      const clone = await this.clone(source, target);
      await using handle = await openForWriting(target);
      await handle.chmod(0o600);
      if (wanted > size) await handle.truncate(wanted);
      return { clone, size_bytes: wanted };
    } catch (error) {
      throw storageError(error, "Making the disk");
    }
  }
}
