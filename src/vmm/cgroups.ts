import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import type { VmmLimits } from "../model/records.ts";

const CONTROLLERS = ["memory", "cpu", "pids"] as const;
type Controller = (typeof CONTROLLERS)[number];

/** The period that quotas of processor time refer to, in microseconds: the kernel's default. */
const CPU_PERIOD_US = 100_000;
/** A dead process leaves its group a little later than it dies. */
const REMOVE_TIMEOUT_MS = 5000;

/** Where the controllers are mounted on this host. */
export interface CgroupLayout {
  readonly version: 1 | 2;
  /** Mount point of each controller that is there; on version 2 all the same. */
  readonly mounts: ReadonlyMap<Controller, string>;
}

/**
 * Reads the layout from the text of /proc/mounts. Version 2 where its hierarchy has every controller that is needed;
 * otherwise version 1 with those that are mounted, since a controller lives in only one of both.
 */
export async function detectCgroups(procMounts: string): Promise<CgroupLayout> {
  const mounts = procMounts.split("\n").map((line) => {
    const [, directory = "", type = "", options = ""] = line.split(" ");
    return { directory, type, options: options.split(",") };
  });
  const unified = mounts.find(({ type }) => type === "cgroup2");
  if (unified !== undefined) {
    const available = (await readFile(join(unified.directory, "cgroup.controllers"), "utf8"))
      .trim()
      .split(" ");
    if (CONTROLLERS.every((controller) => available.includes(controller)))
      return {
        version: 2,
        mounts: new Map(CONTROLLERS.map((controller) => [controller, unified.directory])),
      };
  }
  const found = new Map<Controller, string>();
  for (const controller of CONTROLLERS) {
    const mount = mounts.find(({ type, options }) => type === "cgroup" && options.includes(controller));
    if (mount !== undefined) found.set(controller, mount.directory);
  }
  return { version: 1, mounts: found };
}

/** The cgroups of all VMMs of one daemon: a parent of ours, and in it a leaf for each jail, made by the jailer. */
export class Cgroups {
  readonly layout: CgroupLayout;
  readonly #parent: string;
  #launching = 0;

  /** `parent` is a path below the hierarchy's root, without a leading slash. */
  constructor(layout: CgroupLayout, parent: string) {
    this.layout = layout;
    this.#parent = parent;
  }

  /** Controllers that this host lacks, so that their limits are not set. */
  get missing(): readonly string[] {
    return CONTROLLERS.filter((controller) => !this.layout.mounts.has(controller));
  }

  /** The jailer's flags for these limits. */
  flags(limits: Pick<VmmLimits, "memory_bytes" | "cpus" | "pids">): string[] {
    const quotaUs = Math.max(1000, Math.round(limits.cpus * CPU_PERIOD_US));
    const settings: Record<Controller, string> =
      this.layout.version === 2
        ? {
            memory: `memory.max=${limits.memory_bytes}`,
            cpu: `cpu.max=${quotaUs} ${CPU_PERIOD_US}`,
            pids: `pids.max=${limits.pids}`,
          }
        : {
            memory: `memory.limit_in_bytes=${limits.memory_bytes}`,
            cpu: `cpu.cfs_quota_us=${quotaUs}`,
            pids: `pids.max=${limits.pids}`,
          };
    const flags = CONTROLLERS.flatMap((controller) =>
      this.layout.mounts.has(controller) ? ["--cgroup", settings[controller]] : [],
    );
    // Without any limit, no group is made: on version 2 the jailer would put the VMM into the parent itself.
    return flags.length === 0
      ? []
      : ["--cgroup-version", String(this.layout.version), "--parent-cgroup", this.#parent, ...flags];
  }

  /** Makes the parent and keeps it until the returned holder is disposed. */
  async prepare(): Promise<Disposable> {
    this.#launching += 1;
    const holder = { [Symbol.dispose]: () => void (this.#launching -= 1) };
    try {
      for (const mount of this.#hierarchies()) {
        await mkdir(join(mount, this.#parent), { recursive: true });
        if (this.layout.version === 2) await this.#enableControllers(mount);
      }
      return holder;
    } catch (error) {
      holder[Symbol.dispose]();
      throw error;
    }
  }

  /** Pids of the processes in the jail's leaves. */
  async processes(jailId: string): Promise<number[]> {
    const lists = await Promise.all(
      this.#leaves(jailId).map(async (leaf) => {
        try {
          return (await readFile(join(leaf, "cgroup.procs"), "utf8"))
            .split("\n")
            .filter((line) => line !== "");
        } catch (error) {
          if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENODEV") return [];
          throw error;
        }
      }),
    );
    // 0 stands for a process that this pid namespace does not see.
    return [...new Set(lists.flat().map(Number))].filter((pid) => pid > 0);
  }

  /**
   * Removes the jail's leaves, which the jailer never does, and the parent with the last of them.
   * Nothing may run in them any more. Throws `vmm_timeout` when they stay busy.
   */
  async remove(jailId: string): Promise<void> {
    for (const leaf of this.#leaves(jailId)) await removeGroup(leaf);
    if (this.#launching > 0) return;
    for (const mount of this.#hierarchies()) {
      try {
        await rmdir(join(mount, this.#parent));
      } catch (error) {
        if (!["EBUSY", "ENOTEMPTY", "ENOENT"].includes(errnoOf(error) ?? "")) throw error;
      }
    }
  }

  #hierarchies(): string[] {
    return [...new Set(this.layout.mounts.values())];
  }

  #leaves(jailId: string): string[] {
    return this.#hierarchies().map((mount) => join(mount, this.#parent, jailId));
  }

  /** A controller works in a group only if every group above has it in `cgroup.subtree_control`. */
  async #enableControllers(mount: string): Promise<void> {
    const groups = [this.#parent];
    while (groups[0] !== undefined && groups[0] !== ".") groups.unshift(dirname(groups[0]));
    const wanted = CONTROLLERS.map((controller) => `+${controller}`).join(" ");
    for (const group of groups)
      await writeFile(join(mount, relative(".", group), "cgroup.subtree_control"), wanted);
  }
}

async function removeGroup(path: string): Promise<void> {
  const deadline = performance.now() + REMOVE_TIMEOUT_MS;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 100)) {
    try {
      await rmdir(path);
      return;
    } catch (cause) {
      if (errnoOf(cause) === "ENOENT") return;
      if (errnoOf(cause) !== "EBUSY") throw cause;
      if (performance.now() > deadline)
        throw new AppError("vmm_timeout", `The cgroup ${path} stays busy.`, { cause });
    }
    await sleep(pauseMs);
  }
}
