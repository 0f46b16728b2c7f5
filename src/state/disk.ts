import { constants } from "node:fs";
import { link, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { errnoOf } from "../contract/errors.ts";
import { syncDirectory } from "../system/files.ts";

/** An open file of the state folder. Nothing that was written is durable before `datasync` or `sync` resolves. */
export interface StateFile {
  /** Writes all of `bytes` at `offset`. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  truncate(length: number): Promise<void>;
  datasync(): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/**
 * The few file operations that the state needs, so that a test can stand in a disk that
 * fills up, fails or loses power. Names are not durable before `syncDirectory` resolves.
 */
export interface StateDisk {
  makeDirectory(path: string): Promise<void>;
  /** The whole file, or undefined when there is none. */
  read(path: string): Promise<Uint8Array | undefined>;
  /** Opens an existing file for writing (`open`), or makes a new, empty one, whatever was there before (`create`). */
  open(path: string, how: "open" | "create"): Promise<StateFile>;
  link(existing: string, path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Missing is fine. */
  remove(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
}

const FLAGS = {
  open: constants.O_WRONLY | constants.O_NOFOLLOW,
  create: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
} as const;

/** The operating system's files. */
export const systemDisk: StateDisk = {
  makeDirectory: async (path) => {
    await mkdir(path, { recursive: true, mode: 0o700 });
  },
  read: async (path) => {
    try {
      return await readFile(path);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  },
  open: async (path, how) => {
    const handle = await open(path, FLAGS[how], 0o600);
    return {
      write: async (bytes, offset) => {
        // A disk that is nearly full takes a part of the bytes first, and says ENOSPC at the next try.
        for (let done = 0; done < bytes.length; ) {
          const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done);
          done += bytesWritten;
        }
      },
      truncate: (length) => handle.truncate(length),
      datasync: () => handle.datasync(),
      sync: () => handle.sync(),
      close: () => handle.close(),
    };
  },
  link,
  rename,
  remove: (path) => rm(path, { force: true }),
  syncDirectory,
};
