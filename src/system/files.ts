import { randomBytes } from "node:crypto";
import { lstat, mkdir, open, readdir, rename, rm, rmdir } from "node:fs/promises";
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
  const gone = join(trash, randomName());
  try {
    await rename(path, gone);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return;
    throw error;
  }
  await removeTrash(gone, trash);
}

/**
 * Deletes what lies at `path`, directly in `trash`, however deep it goes: whoever owns a folder can make folders in it whose
 * path is longer than any that the system takes. Links in it are deleted, never followed. Missing is fine.
 */
export async function removeTrash(path: string, trash: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
    return;
  } catch (error) {
    if (!isErrno(error, "ENAMETOOLONG")) throw error;
  }
  // Each folder is brought up into the trash before it is looked into, so that no path gets long.
  const folders = [path];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      const inner = join(folder, entry.name);
      if (!entry.isDirectory()) {
        await rm(inner, { force: true });
        continue;
      }
      const raised = join(trash, randomName());
      await rename(inner, raised);
      folders.push(raised);
    }
    await rmdir(folder);
  }
}

function randomName(): string {
  return randomBytes(8).toString("hex");
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
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
