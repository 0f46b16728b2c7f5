import { readFileSync, readlinkSync, statSync } from "node:fs";

/**
 * A process that can be recognised again. A pid alone is used again by the kernel:
 * only pid, start time and boot together name one process.
 */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/pid/stat: clock ticks after boot. */
  readonly start_time_ticks: number;
  readonly boot_id: string;
}

/** The id of the running boot, from the kernel. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

interface ProcessStat {
  readonly state: string;
  readonly start_time_ticks: number;
}

/** State letter and start time of `pid`, or undefined when there is no such process. */
export function processStat(pid: number): ProcessStat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The name in parentheses may hold spaces and parentheses: fields are counted from the last ")".
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state] = fields;
  return state === undefined ? undefined : { state, start_time_ticks: Number(fields[19]) };
}

/** The identity of the process that has `pid` now, or undefined when there is none or only its remains. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const stat = processStat(pid);
  if (stat === undefined || stat.state === "Z" || stat.state === "X") return undefined;
  return { pid, start_time_ticks: stat.start_time_ticks, boot_id: bootId() };
}

/** True while exactly this process lives. A zombie is dead. */
export function isAlive(process: ProcessIdentity): boolean {
  const now = identifyProcess(process.pid);
  return (
    now !== undefined && now.start_time_ticks === process.start_time_ticks && now.boot_id === process.boot_id
  );
}

/** Sends SIGKILL to exactly this process. Returns false when it no longer lives. */
export function killProcess(target: ProcessIdentity): boolean {
  if (!isAlive(target)) return false;
  try {
    process.kill(target.pid, "SIGKILL");
    return true;
  } catch {
    return false;
  }
}

/** Device and inode of what a /proc link of `pid` points to (`root`, `exe`, `ns/net`), or undefined. */
export function processLink(
  pid: number,
  name: "root" | "exe" | "ns/net",
): { dev: number; ino: number; target: string } | undefined {
  try {
    const path = `/proc/${pid}/${name}`;
    const { dev, ino } = statSync(path);
    return { dev, ino, target: readlinkSync(path) };
  } catch {
    return undefined;
  }
}

/** Effective uid and gid of `pid`, or undefined when it is gone. */
export function processOwner(pid: number): { uid: number; gid: number } | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1];
    const gid = /^Gid:\s+\d+\s+(\d+)/m.exec(status)?.[1];
    return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
  } catch {
    return undefined;
  }
}
