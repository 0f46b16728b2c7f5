/** What a jailer command line asks for, checked in the order in which the real jailer checks it. */
import { realpathSync, statSync } from "node:fs";
import { basename, join } from "node:path";

import type { Arguments } from "../shared/arguments.ts";
import { instanceIdFault } from "../shared/instance-id.ts";
import { CgroupPlan, joinParentCgroup } from "./cgroups.ts";
import { JailerError, pathError } from "./jailer-error.ts";

/** RLIMIT_NOFILE when none is asked for. */
const DEFAULT_NO_FILE = 2048n;
const U32_MAX = 4_294_967_295;
const U64_MAX = 18_446_744_073_709_551_615n;

export interface JailOptions {
  readonly id: string;
  /** The program to run, with its links resolved. */
  readonly execFile: string;
  readonly execName: string;
  /** `<base>/<exec name>/<id>/root`, the folder that becomes `/`. */
  readonly rootDir: string;
  readonly uid: number;
  readonly gid: number;
  readonly netns: string | undefined;
  readonly daemonize: boolean;
  readonly newPidNs: boolean;
  readonly cgroups: CgroupPlan | undefined;
  readonly limits: ResourceLimits;
  /** Arguments for the jailed program. */
  readonly extra: readonly string[];
}

export interface ResourceLimits {
  readonly noFile: bigint;
  /** Bytes; undefined leaves the limit as it is. */
  readonly fileSize: bigint | undefined;
}

/**
 * Checks everything that can be checked before anything is made. As in the real jailer, one thing is done here:
 * with cgroup v2 and no `--cgroup`, the process moves itself into an existing parent cgroup. Throws JailerError.
 */
export function readOptions(args: Arguments): JailOptions {
  const id = args.value("id") ?? "";
  const fault = instanceIdFault(id);
  if (fault !== undefined) {
    throw new JailerError(`Invalid instance ID: ${fault.sentence}`, `InvalidInstanceId(${fault.debug})`);
  }
  const execFile = existing(args.value("exec-file") ?? "");
  if (!statSync(execFile).isFile()) {
    throw new JailerError(`${execFile} is not a file`, `NotAFile(${JSON.stringify(execFile)})`);
  }
  const execName = basename(execFile);
  const base = existing(args.value("chroot-base-dir") ?? "");
  if (!statSync(base).isDirectory()) {
    throw new JailerError(`${base} is not a directory`, `NotADirectory(${JSON.stringify(base)})`);
  }
  const uid = parseId("uid", args.value("uid") ?? "");
  const gid = parseId("gid", args.value("gid") ?? "");

  const parent = args.value("parent-cgroup") ?? execName;
  if (isTwistedPath(parent)) {
    throw new JailerError(
      "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
      "CgroupInvalidParentPath",
    );
  }
  const version = parseCgroupVersion(args.value("cgroup-version") ?? "");
  const wanted = args.list("cgroup");
  if (wanted === undefined && version === 2) joinParentCgroup(parent);
  const cgroups = wanted === undefined ? undefined : planCgroups(version, parent, id, wanted);

  return {
    id,
    execFile,
    execName,
    rootDir: join(base, execName, id, "root"),
    uid,
    gid,
    netns: args.value("netns"),
    daemonize: args.flag("daemonize"),
    newPidNs: args.flag("new-pid-ns"),
    cgroups,
    limits: parseResourceLimits(args.list("resource-limit") ?? []),
    extra: args.extra,
  };
}

/** Parses `fsize=<bytes>` and `no-file=<count>`. Throws JailerError. */
export function parseResourceLimits(given: readonly string[]): ResourceLimits {
  let noFile = DEFAULT_NO_FILE;
  let fileSize: bigint | undefined;
  for (const limit of given) {
    const split = limit.indexOf("=");
    if (split < 0) {
      throw new JailerError(
        `Invalid format for resources limits: ${limit}`,
        `ResLimitFormat(${JSON.stringify(limit)})`,
      );
    }
    const name = limit.slice(0, split);
    const text = limit.slice(split + 1);
    const value = parseU64(text);
    if (typeof value === "string") {
      throw new JailerError(
        `Invalid limit value for resource: ${text}: ${value}`,
        `ResLimitValue(${JSON.stringify(text)}, ${JSON.stringify(value)})`,
      );
    }
    if (name === "fsize") fileSize = value;
    else if (name === "no-file") noFile = value;
    else {
      throw new JailerError(
        `Invalid resource argument: ${name}`,
        `ResLimitArgument(${JSON.stringify(name)})`,
      );
    }
  }
  return { noFile, fileSize };
}

function planCgroups(version: number, parent: string, id: string, wanted: readonly string[]): CgroupPlan {
  const plan = new CgroupPlan(version, parent, id);
  for (const property of wanted) {
    const [file = "", value = "", ...rest] = property.split("=");
    if (value === "" || rest.length > 0) {
      throw new JailerError(
        `Invalid format for cgroups: ${property}`,
        `CgroupFormat(${JSON.stringify(property)})`,
      );
    }
    if (isTwistedPath(file)) {
      throw new JailerError(
        `Cgroup invalid file: ${property}`,
        `CgroupInvalidFile(${JSON.stringify(property)})`,
      );
    }
    plan.add(file, value);
  }
  return plan;
}

function existing(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    throw pathError("Canonicalize", "Failed to canonicalize path", path, cause);
  }
}

function parseId(name: "uid" | "gid", text: string): number {
  const value = /^\+?[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= U32_MAX)) {
    const variant = name === "uid" ? "Uid" : "Gid";
    throw new JailerError(`Invalid ${name}: ${text}`, `${variant}(${JSON.stringify(text)})`);
  }
  return value;
}

function parseCgroupVersion(text: string): number {
  const value = /^\+?[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= 255)) {
    throw new JailerError(
      `${text} is an invalid cgroup version specifier`,
      `CgroupInvalidVersion(${JSON.stringify(text)})`,
    );
  }
  return value;
}

/** The number, or the sentence that says why it is none. */
function parseU64(text: string): bigint | string {
  if (text === "") return "cannot parse integer from empty string";
  if (!/^\+?[0-9]+$/.test(text)) return "invalid digit found in string";
  const value = BigInt(text.replace("+", ""));
  return value > U64_MAX ? "number too large to fit in target type" : value;
}

/** True for absolute paths and those with `..` or a leading `.` (dots inside vanish when a path is taken apart). */
function isTwistedPath(path: string): boolean {
  return path.startsWith("/") || path === "." || path.startsWith("./") || path.split("/").includes("..");
}
