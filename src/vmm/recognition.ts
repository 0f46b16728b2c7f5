import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { errnoOf } from "../contract/errors.ts";
import {
  identifyProcess,
  isAlive,
  type ProcessIdentity,
  processLink,
  processOwner,
} from "../system/process.ts";
import type { Jail } from "./jail.ts";

/** What a VMM's process must be like. */
export interface Expected {
  readonly uid: number;
  readonly gid: number;
  readonly netns_path: string;
}

/**
 * The pid in the jailer's pid file, or undefined while there is none.
 * The file lies in a folder of the VMM's user: no link is followed, and only a root-owned file with one name counts.
 */
export function readPidFile(jail: Jail): number | undefined {
  const path = join(jail.root, `${basename(dirname(jail.directory))}.pid`);
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.uid !== 0 || stat.nlink !== 1)
      throw new Error("the pid file in the jail is not the jailer's");
    const buffer = Buffer.alloc(16);
    const text = buffer.toString("latin1", 0, readSync(fd, buffer, 0, buffer.length, 0)).trim();
    // Empty: made but not yet written.
    if (text === "") return undefined;
    if (!/^[1-9]\d{0,9}$/.test(text)) throw new Error("the pid file in the jail holds no pid");
    return Number(text);
  } finally {
    closeSync(fd);
  }
}

/**
 * The identity of the process `pid` if it is this jail's VMM: its root folder, user, group and network namespace are
 * those that were asked for. Otherwise says what does not fit.
 */
export function recognise(pid: number, jail: Jail, expected: Expected): ProcessIdentity | { misfit: string } {
  const identity = identifyProcess(pid);
  if (identity === undefined) return { misfit: `there is no process ${pid}` };
  const misfit = misfitOf(pid, jail, expected);
  if (misfit !== undefined) return { misfit };
  // All of the above was read from one process only if it is still the same one now.
  return isAlive(identity) ? identity : { misfit: `process ${pid} ended` };
}

/** True when `process` is still the one that was recorded, and still what a VMM of this jail must be. */
export function isStill(process: ProcessIdentity, jail: Jail, expected: Expected): boolean {
  const now = recognise(process.pid, jail, expected);
  return (
    !("misfit" in now) && now.start_time_ticks === process.start_time_ticks && now.boot_id === process.boot_id
  );
}

function misfitOf(pid: number, jail: Jail, expected: Expected): string | undefined {
  const same = (a: Place | undefined, b: Place | undefined): boolean =>
    a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
  if (!same(processLink(pid, "root"), statSync(jail.root, { throwIfNoEntry: false })))
    return `process ${pid} does not have the jail as its root folder`;
  const owner = processOwner(pid);
  if (owner?.uid !== expected.uid || owner.gid !== expected.gid)
    return `process ${pid} does not run as ${expected.uid}:${expected.gid}`;
  if (!same(processLink(pid, "ns/net"), statSync(expected.netns_path, { throwIfNoEntry: false })))
    return `process ${pid} is not in the network namespace ${expected.netns_path}`;
  return undefined;
}

interface Place {
  readonly dev: number;
  readonly ino: number;
}
