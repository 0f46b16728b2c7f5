import { readdirSync, readFileSync } from "node:fs";
import { waitFor } from "./wait.ts";

/** The fields of /proc/<pid>/status, or undefined when the process is gone. */
export function status(pid: number): Map<string, string> | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/status`, "utf8");
    return new Map(
      text.split("\n").map((line): [string, string] => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon), line.slice(colon + 1).trim()];
      }),
    );
  } catch {
    return undefined;
  }
}

/** A field of /proc/<pid>/status. Throws if the process or the field is not there. */
export function statusField(pid: number, field: string): string {
  const value = status(pid)?.get(field);
  if (value === undefined) throw new Error(`process ${pid} has no ${field}: it is gone`);
  return value;
}

/** False too for a zombie: it runs nothing and only waits to be collected. */
export function isAlive(pid: number): boolean {
  const state = status(pid)?.get("State");
  return state !== undefined && !state.startsWith("Z") && !state.startsWith("X");
}

function livingPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter(isAlive);
}

/** The process and everything it started, as far as parents tell. */
export function family(root: number): number[] {
  const parents = new Map(livingPids().map((pid) => [pid, Number(status(pid)?.get("PPid") ?? 0)]));
  const found = new Set([root]);
  for (let before = 0; before < found.size; ) {
    before = found.size;
    for (const [pid, parent] of parents) if (found.has(parent)) found.add(pid);
  }
  return [...found].filter(isAlive);
}

/** Processes whose real uid is `uid`: a jail's uid is used by nothing else. */
export function processesOfUid(uid: number): number[] {
  return livingPids().filter((pid) => Number(status(pid)?.get("Uid")?.split("\t")[0]) === uid);
}

export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "(gone)";
  }
}

export function kill(pid: number, signal: NodeJS.Signals = "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/**
 * Waits until none of `pids` lives. If some still do after `timeoutMs` they are killed and named in the
 * error: a VMM that leaves anything running after its own end has failed.
 */
export async function expectAllGone(pids: readonly number[], timeoutMs = 5_000): Promise<void> {
  try {
    await waitFor("the end of all processes of the VMM", () => !pids.some(isAlive), timeoutMs);
  } catch {
    const left = pids.filter(isAlive);
    const names = left.map((pid) => `${pid} ${commandLine(pid)}`);
    for (const pid of left) kill(pid);
    throw new Error(`outlived the VMM: ${names.join("; ")}`);
  }
}
