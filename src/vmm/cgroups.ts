import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
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

/** A limit as a file of a leaf. */
export interface Setting {
  /** Mount point of its hierarchy. */
  readonly mount: string;
  readonly file: string;
  readonly value: string;
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
    const flags = this.settings(limits).flatMap(({ file, value }) => ["--cgroup", `${file}=${value}`]);
    // Without any limit, no group is made: on version 2 the jailer would put the VMM into the parent itself.
    return flags.length === 0
      ? []
      : ["--cgroup-version", String(this.layout.version), "--parent-cgroup", this.#parent, ...flags];
  }

  /** What is written into which file of a jail's leaf, and in which hierarchy, for these limits. */
  settings(limits: Pick<VmmLimits, "memory_bytes" | "cpus" | "pids">): Setting[] {
    const quotaUs = Math.max(1000, Math.round(limits.cpus * CPU_PERIOD_US));
    const isUnified = this.layout.version === 2;
    const files = {
      memory: {
        file: isUnified ? "memory.max" : "memory.limit_in_bytes",
        value: String(limits.memory_bytes),
      },
      cpu: isUnified
        ? { file: "cpu.max", value: `${quotaUs} ${CPU_PERIOD_US}` }
        : { file: "cpu.cfs_quota_us", value: String(quotaUs) },
      pids: { file: "pids.max", value: String(limits.pids) },
    } satisfies Record<Controller, Omit<Setting, "mount">>;
    return CONTROLLERS.flatMap((controller) => {
      const mount = this.layout.mounts.get(controller);
      return mount === undefined ? [] : [{ mount, ...files[controller] }];
    });
  }

  /** Ids of the jails that have a leaf in any hierarchy. */
  async list(): Promise<string[]> {
    const found = await Promise.all(
      this.#hierarchies().map(async (mount) => {
        try {
          const entries = await readdir(join(mount, this.#parent), { withFileTypes: true });
          return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
        } catch (error) {
          if (errnoOf(error) === "ENOENT") return [];
          throw error;
        }
      }),
    );
    return [...new Set(found.flat())];
  }

  /** What is wrong with the leaves of a jail whose VMM is `pid`, as a part of a sentence; undefined when nothing is. */
  async problem(jailId: string, limits: VmmLimits, pid: number): Promise<string | undefined> {
    for (const { mount, file, value } of this.settings(limits)) {
      const leaf = join(mount, this.#parent, jailId);
      const [procs, found] = await Promise.all(
        ["cgroup.procs", file].map((name) => textOf(join(leaf, name))),
      );
      if (procs === undefined || found === undefined) return `${leaf} is missing`;
      if (!procs.split("\n").includes(String(pid))) return `the VMM is not in ${leaf}`;
      if (found.trim() !== value) return `${file} in ${leaf} is ${found.trim()}, should be ${value}`;
    }
    return undefined;
  }

  /** Makes the leaves of a jail as they should be, with its VMM in them; what is right stays as it is. */
  async restore(jailId: string, limits: VmmLimits, pid: number): Promise<void> {
    using _parent = await this.prepare();
    for (const { mount, file, value } of this.settings(limits)) {
      const leaf = join(mount, this.#parent, jailId);
      await mkdir(leaf, { recursive: true });
      if ((await textOf(join(leaf, file)))?.trim() !== value) await writeFile(join(leaf, file), value);
      const procs = (await textOf(join(leaf, "cgroup.procs"))) ?? "";
      if (!procs.split("\n").includes(String(pid))) await writeFile(join(leaf, "cgroup.procs"), String(pid));
    }
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
        const text = (await textOf(join(leaf, "cgroup.procs"))) ?? "";
        return text.split("\n").filter((line) => line !== "");
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

/** A file of a group; undefined when the group is not there, or goes away meanwhile. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENODEV") return undefined;
    throw error;
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
