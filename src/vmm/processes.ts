import { readdirSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../contract/errors.ts";
import {
  identifyProcess,
  isAlive,
  killProcess,
  type ProcessIdentity,
  processLink,
} from "../system/process.ts";

const DEATH_TIMEOUT_MS = 10_000;

/** Sends SIGKILL and resolves when the process is dead; a zombie is. Throws `vmm_timeout` when it does not die. */
export async function killAndWait(target: ProcessIdentity): Promise<void> {
  killProcess(target);
  // Freeing a guest's memory takes a while. There is no notification of a death that is not a child's.
  const deadline = performance.now() + DEATH_TIMEOUT_MS;
  for (let pauseMs = 1; isAlive(target); pauseMs = Math.min(pauseMs * 2, 50)) {
    if (performance.now() > deadline)
      throw new AppError("vmm_timeout", `The VMM's process ${target.pid} does not die of SIGKILL.`);
    await sleep(pauseMs);
  }
}

/** Processes whose root folder is `root`: they run in that jail. */
export function processesRootedAt(root: string): ProcessIdentity[] {
  const wanted = statSync(root, { throwIfNoEntry: false });
  if (wanted === undefined) return [];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const link = processLink(pid, "root");
      return link?.dev === wanted.dev && link.ino === wanted.ino;
    })
    .map(identifyProcess)
    .filter((found) => found !== undefined);
}

/**
 * Kills what `find` finds until it finds nothing more: what is being killed may still have made another process.
 * Throws `vmm_timeout` when that has no end.
 */
export async function killAll(find: () => Promise<readonly ProcessIdentity[]>): Promise<void> {
  const deadline = performance.now() + DEATH_TIMEOUT_MS;
  for (;;) {
    const found = await find();
    if (found.length === 0) return;
    if (performance.now() > deadline)
      throw new AppError(
        "vmm_timeout",
        `Processes ${found.map(({ pid }) => pid).join(", ")} of a jail do not end.`,
      );
    await Promise.all(found.map(killAndWait));
  }
}
