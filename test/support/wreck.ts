import { readdirSync, readlinkSync, rmSync } from "node:fs";
import { run } from "../../src/system/run.ts";

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Ends and removes everything that carries this tag: only for a daemon that was ended, and only what its test made. */
export async function removeAllOf(rootDir: string, tag: string): Promise<void> {
  const jails = `${rootDir}/jails/`;
  for (const pid of entries("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readlinkSync(`/proc/${pid}/root`).startsWith(jails)) process.kill(Number(pid), "SIGKILL");
    } catch {
      // It went by itself.
    }
  }
  for (const netns of entries("/run/netns").filter((name) => name.startsWith(`ch-${tag}-`))) {
    await run(["ip", "netns", "del", netns], { okCodes: [0, 1] });
  }
  for (const hierarchy of ["/sys/fs/cgroup", ...entries("/sys/fs/cgroup").map((name) => `/sys/fs/cgroup/${name}`)]) {
    const parent = `${hierarchy}/computer-host-${tag}`;
    for (let attempt = 0; attempt < 20 && entries(parent).length > 0; attempt += 1) {
      await run(["find", parent, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], { okCodes: [0, 1] });
    }
  }
  rmSync(`/run/computer-host/claims/${tag}.json`, { force: true });
}
