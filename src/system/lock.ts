import { spawnSync } from "node:child_process";
import { type FileHandle, open } from "node:fs/promises";

/**
 * Holds `path` for this process alone, until the handle is closed or the process is gone, however it goes.
 * Returns undefined when another process holds it. Node has no flock(2), but the lock belongs to the open file: the
 * `flock` program takes it on our descriptor and leaves it there.
 */
export async function lockFile(path: string): Promise<FileHandle | undefined> {
  const handle = await open(path, "a", 0o600);
  const { status, error } = spawnSync("flock", ["--nonblock", "--exclusive", "3"], {
    stdio: ["ignore", "ignore", "ignore", handle.fd],
  });
  if (status === 0) return handle;
  await handle.close();
  if (error !== undefined) throw error;
  return undefined;
}
