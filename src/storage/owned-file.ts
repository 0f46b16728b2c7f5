import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

/** How a file of ours is opened: never through a link, and a pipe or device in its place cannot hold us up. */
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const WRITE = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const CREATE = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Names of a file that a VMM writes: the daemon's own and the one in its jail. One with more is not as we made it. */
export const MOST_LINKS = 2;

async function checked(handle: FileHandle, path: string): Promise<FileHandle> {
  try {
    if (!(await handle.stat()).isFile()) throw new Error(`${path} is not a regular file`);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Opens a regular file for reading. Throws on links and anything else. */
export async function openForReading(path: string): Promise<FileHandle> {
  return checked(await open(path, READ), path);
}

/** Opens a regular file for reading and writing. */
export async function openForWriting(path: string): Promise<FileHandle> {
  return checked(await open(path, WRITE), path);
}

/** Makes a new file with exactly `mode`, whatever the umask. Throws EEXIST when the name is taken, by a link too. */
export async function createFile(path: string, mode: number): Promise<FileHandle> {
  const handle = await open(path, CREATE, 0o600);
  try {
    await handle.chmod(mode);
    return handle;
  } catch (error) {
    // One that nobody closes ends the whole process when its memory is collected.
    await handle.close();
    throw error;
  }
}

/** Gives a file an owner and a mode, by its descriptor. */
export async function setOwner(path: string, uid: number, gid: number, mode: number): Promise<void> {
  await using handle = await openForWriting(path);
  await handle.chown(uid, gid);
  await handle.chmod(mode);
}

/** Makes content and size of a file durable (its name is not yet: see syncDirectory). */
export async function syncFile(path: string): Promise<void> {
  await using handle = await openForReading(path);
  await handle.sync();
}
