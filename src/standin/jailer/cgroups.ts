/**
 * Cgroups as the jailer makes them: `<mount>/<parent>/<id>`, values written in the order given, the calling
 * process moved in before exec. v1 has a hierarchy for each controller, v2 has one for all.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { JailerError, pathError } from "./jailer-error.ts";

const MOUNTS = "/proc/mounts";

export interface CgroupMount {
  readonly dir: string;
  readonly version: 1 | 2;
  readonly options: readonly string[];
}

/** Reads the cgroup mounts out of the text of /proc/mounts, in its order. */
export function parseCgroupMounts(text: string): readonly CgroupMount[] {
  const mounts: CgroupMount[] = [];
  for (const line of text.split("\n")) {
    const match = /^[a-z2]*\s(?<dir>.*)\scgroup(?<version>2?)\s(?<options>.*)\s0\s0$/.exec(line);
    if (match?.groups === undefined) continue;
    const { dir = "", version, options = "" } = match.groups;
    mounts.push({ dir, version: version === "2" ? 2 : 1, options: options.split(",") });
  }
  return mounts;
}

interface Leaf {
  readonly path: string;
  readonly properties: { readonly file: string; readonly value: string }[];
}

/** The cgroups that one jail asks for. Nothing is made before `apply`. */
export class CgroupPlan {
  readonly #version: number;
  readonly #parent: string;
  readonly #id: string;
  readonly #mounts: readonly CgroupMount[];
  readonly #leaves = new Map<string, Leaf>();

  /** Throws JailerError if no hierarchy of this version is mounted. */
  constructor(version: number, parent: string, id: string) {
    this.#version = version;
    this.#parent = parent;
    this.#id = id;
    this.#mounts = mountsOf(version);
  }

  /** Adds one `<controller>.<property>` and its value. Throws JailerError for an unknown controller. */
  add(file: string, value: string): void {
    const [controller = "", ...rest] = file.split(".");
    if (rest.length === 0) {
      throw new JailerError(`Cgroup invalid file: ${file}`, `CgroupInvalidFile(${JSON.stringify(file)})`);
    }
    const mount = this.#mountFor(controller);
    const key = this.#version === 2 ? "unified" : controller;
    const leaf = this.#leaves.get(key) ?? { path: join(mount.dir, this.#parent, this.#id), properties: [] };
    leaf.properties.push({ file, value });
    this.#leaves.set(key, leaf);
  }

  /** Makes the leaves, writes their values, then moves this process in: cpuset wants its values first. */
  apply(): void {
    for (const leaf of this.#leaves.values()) {
      makeDir(leaf.path);
      const enabled = new Set<string>();
      for (const { file, value } of leaf.properties) {
        if (this.#version === 2) {
          const [controller = ""] = file.split(".");
          if (!enabled.has(controller)) enableController(dirname(leaf.path), controller);
          enabled.add(controller);
        } else {
          inheritFromParent(leaf.path, file, this.#parent.split("/").filter((part) => part !== "").length);
        }
        writeLine(join(leaf.path, file), value);
      }
    }
    for (const leaf of this.#leaves.values()) {
      // v1's `tasks` takes one thread. It is enough: the others end with the exec that follows.
      writeLine(join(leaf.path, this.#version === 2 ? "cgroup.procs" : "tasks"), String(process.pid));
    }
  }

  #mountFor(controller: string): CgroupMount {
    const mount = this.#mounts.find(
      (candidate) => this.#version === 2 || candidate.options.includes(controller),
    );
    const available =
      mount !== undefined && (this.#version === 1 || controllersOf(mount.dir).includes(controller));
    if (!available) {
      throw new JailerError(
        `Controller ${controller} is unavailable`,
        `CgroupControllerUnavailable(${JSON.stringify(controller)})`,
      );
    }
    return mount;
  }
}

/** With v2 and no `--cgroup`: joins the parent cgroup, if it is there. Throws JailerError. */
export function joinParentCgroup(parent: string): void {
  const [mount] = mountsOf(2);
  const dir = join(mount?.dir ?? "", parent);
  if (!existsSync(dir)) return;
  try {
    writeFileSync(join(dir, "cgroup.procs"), String(process.pid));
  } catch (cause) {
    throw pathError("CgroupMove", "Failed to move process to cgroup", `(${dir})`, cause);
  }
}

function mountsOf(version: number): readonly CgroupMount[] {
  const mounts = parseCgroupMounts(readText(MOUNTS)).filter((mount) => mount.version === version);
  if (mounts.length === 0) {
    const reason = "No hierarchy found for this cgroup version.";
    throw new JailerError(
      `Hierarchy not found: ${reason}`,
      `CgroupHierarchyMissing(${JSON.stringify(reason)})`,
    );
  }
  return mounts;
}

function controllersOf(dir: string): readonly string[] {
  try {
    return readFileSync(join(dir, "cgroup.controllers"), "utf8").trim().split(" ");
  } catch {
    return [];
  }
}

/** v1 leaves some files (cpuset's) empty in a new folder; an empty one takes its parent's value first. */
function inheritFromParent(path: string, file: string, depth: number): void {
  const parent = dirname(path);
  const parentFile = join(parent, file);
  let line = readLine(parentFile);
  if (line === "" && depth > 0) {
    try {
      inheritFromParent(parent, file, depth - 1);
    } catch {
      // Another jailer may have written it in the same moment; what counts is that it is no longer empty.
    }
    line = readLine(parentFile);
  }
  if (line === "") {
    throw new JailerError(
      `Failed to inherit cgroups configurations from file ${file} in path ${path}`,
      `CgroupInheritFromParent(${JSON.stringify(path)}, ${JSON.stringify(file)})`,
    );
  }
  writeLine(join(path, file), line);
}

/** v2: a controller must be switched on in every folder from the top down to the leaf's parent. */
function enableController(path: string, controller: string): void {
  const control = join(path, "cgroup.subtree_control");
  if (!existsSync(control)) return;
  if (dirname(path) !== path) enableController(dirname(path), controller);
  writeLine(control, `+${controller}`);
}

function makeDir(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (cause) {
    throw pathError("CreateDir", "Failed to create directory", path, cause);
  }
}

/** The text without its last character, a newline. */
function readLine(path: string): string {
  return readText(path).slice(0, -1);
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw pathError("ReadToString", "Failed to read file", path, cause, " into a string: ");
  }
}

function writeLine(path: string, value: string): void {
  try {
    writeFileSync(path, `${value}\n`);
  } catch (cause) {
    throw pathError("Write", "Failed to write to", path, cause);
  }
}
