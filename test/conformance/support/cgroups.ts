import { existsSync, readFileSync, rmdirSync } from "node:fs";
import { dirname, join } from "node:path";

/** Where a v1 controller is mounted, or undefined. */
export function v1Mount(controller: string): string | undefined {
  return mountPoints("cgroup").find(({ options }) => options.split(",").includes(controller))?.point;
}

/** Where the v2 hierarchy is mounted, with the controllers that it has, or undefined. */
export function v2Mount(): { point: string; controllers: string[] } | undefined {
  const found = mountPoints("cgroup2")[0];
  if (found === undefined) return undefined;
  const controllers = readFileSync(join(found.point, "cgroup.controllers"), "utf8").trim().split(" ");
  return { point: found.point, controllers: controllers.filter((name) => name !== "") };
}

function mountPoints(type: string): { point: string; options: string }[] {
  const lines = readFileSync("/proc/mounts", "utf8").split("\n");
  return lines.flatMap((line) => {
    const [, point = "", fstype, options = ""] = line.split(" ");
    return fstype === type ? [{ point, options }] : [];
  });
}

export function members(group: string): number[] {
  return readFileSync(join(group, "cgroup.procs"), "utf8").trim().split("\n").map(Number);
}

/** Removes a jail's group and its parent, which no other test shares. Nobody may live in them. */
export function removeGroup(group: string): void {
  for (const folder of [group, dirname(group)]) if (existsSync(folder)) rmdirSync(folder);
}
