import { randomBytes } from "node:crypto";
import { lstat, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";

/** Makes the names in `directory` durable: a rename or a new file is only kept across power loss after this. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces `path` by `content`, wholly or not at all, across power loss too. */
export async function writeFileDurably(
  path: string,
  content: string | Uint8Array,
  mode = 0o600,
): Promise<void> {
  const temporary = `${path}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    const handle = await open(temporary, "wx", mode);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** Makes `directory` with `mode` (parents too), and is content when it is there. */
export async function ensureDirectory(directory: string, mode = 0o700): Promise<void> {
  await mkdir(directory, { recursive: true, mode });
}

/**
 * Takes `path` out of sight at once (a rename into `trash`) and then deletes it,
 * so that a half-deleted folder never stands under its old name. Missing is fine.
 */
export async function removeTree(path: string, trash: string): Promise<void> {
  const gone = join(trash, randomBytes(8).toString("hex"));
  try {
    await rename(path, gone);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
    throw error;
  }
  await rm(gone, { recursive: true, force: true });
}

/** True when there is something at `path`, a link that leads nowhere included. */
export async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}
