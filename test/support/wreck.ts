import { readdirSync, rmSync, statSync } from "node:fs";
import { run } from "../../src/system/run.ts";

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Pids of all processes that live in a jail under `rootDir`: whose root is a jail's folder, by device and inode. */
export function jailedProcesses(rootDir: string): number[] {
  const roots = new Set<string>();
  for (const exec of entries(`${rootDir}/jails`)) {
    for (const id of entries(`${rootDir}/jails/${exec}`))
      roots.add(inodeOf(`${rootDir}/jails/${exec}/${id}/root`) ?? "");
  }
  roots.delete("");
  return entries("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => roots.has(inodeOf(`/proc/${pid}/root/`) ?? "none"));
}

function inodeOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** Ends and removes everything that carries this tag: only for a daemon that was ended, and only what its test made. */
export async function removeAllOf(rootDir: string, tag: string): Promise<void> {
  for (const pid of jailedProcesses(rootDir)) process.kill(pid, "SIGKILL");
  for (const netns of entries("/run/netns").filter((name) => name.startsWith(`ch-${tag}-`))) {
    await run(["ip", "netns", "del", netns], { okCodes: [0, 1] });
  }
  for (const hierarchy of [
    "/sys/fs/cgroup",
    ...entries("/sys/fs/cgroup").map((name) => `/sys/fs/cgroup/${name}`),
  ]) {
    const parent = `${hierarchy}/computer-host-${tag}`;
    for (let attempt = 0; attempt < 20 && entries(parent).length > 0; attempt += 1) {
      await run(["find", parent, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], { okCodes: [0, 1] });
    }
  }
  rmSync(`/run/computer-host/claims/${tag}.json`, { force: true });
}
