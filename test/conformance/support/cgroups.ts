import { existsSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { waitFor } from "./wait.ts";

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

/**
 * Removes a jail's group and its parent, which no other test shares. Nobody may live in them; whoever has just died
 * keeps them busy for a moment, even when none is listed any more.
 */
export async function removeGroup(group: string): Promise<void> {
  for (const folder of [group, dirname(group)]) {
    if (existsSync(folder)) await waitFor(`an end of ${folder}`, () => isRemoved(folder), 5_000);
  }
}

function isRemoved(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EBUSY") return false;
    throw error;
  }
}

/** A limit of each v2 controller that tests may set on a group, as the kernel tells it back. */
const V2_LIMITS: Readonly<Record<string, readonly [file: string, value: string]>> = {
  pids: ["pids.max", "77"],
  memory: ["memory.max", "536870912"],
  hugetlb: ["hugetlb.2MB.max", "4194304"],
};

/** A limit that the v2 hierarchy here can carry: hosts that use v1 often leave it one controller or none. */
export function v2Limit(): { controller: string; file: string; value: string } | undefined {
  for (const controller of v2Mount()?.controllers ?? []) {
    const limit = V2_LIMITS[controller];
    if (limit !== undefined) return { controller, file: limit[0], value: limit[1] };
  }
  return undefined;
}

/** Returns what puts the root's list of controllers for its children back: the jailer adds to it for good. */
export function rememberSubtreeControl(point: string): () => void {
  const file = join(point, "cgroup.subtree_control");
  const names = () => readFileSync(file, "utf8").trim().split(" ");
  const before = new Set(names());
  return () => {
    for (const name of names()) {
      if (name === "" || before.has(name)) continue;
      try {
        writeFileSync(file, `-${name}`);
      } catch (error) {
        // A group of somebody else has come to use it meanwhile: then it is theirs to put back.
        if (!(error instanceof Error && "code" in error && error.code === "EBUSY")) throw error;
      }
    }
  };
}
