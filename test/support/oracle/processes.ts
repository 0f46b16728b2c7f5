import { readdirSync, readFileSync, statSync } from "node:fs";
import { processLink, processOwner, processStat } from "../../../src/system/process.ts";
import type { Item, Owner, Scope } from "./item.ts";
import { ownerOfPath } from "./kernel.ts";
import { places } from "./place.ts";

/**
 * Processes that have anything to do with the daemon. A VMM that moved its root, dropped its arguments and changed its
 * name is still known by one of: the inode of its root, its cgroup, its network namespace.
 * Reads synchronously, so that no command of the oracle's own is seen. Zombies are dead and left out.
 */
export function readProcesses(scope: Scope): Item[] {
  const ignored = ancestors(process.pid);
  const jails = jailRoots(scope);
  const namespaces = slotNamespaces(scope);
  const seen = new Map<string, number>();
  return readdirSync("/proc").flatMap((entry): Item[] => {
    if (!/^\d+$/.test(entry) || ignored.has(Number(entry))) return [];
    const pid = Number(entry);
    const state = processStat(pid)?.state;
    if (state === undefined || state === "Z" || state === "X") return [];
    const owner = ownerOfProcess(scope, pid, jails, namespaces);
    if (owner === undefined) return [];
    const ids = processOwner(pid);
    const title = `${describe(owner)}: ${commandLine(pid).replaceAll("\0", " ").trim()}`;
    const count = (seen.get(title) ?? 0) + 1;
    seen.set(title, count);
    const name = count === 1 ? title : `${title} (${count})`;
    return [{ resource: "process", name, value: `${ids?.uid}:${ids?.gid}`, owner, pid }];
  });
}

function describe(owner: Owner): string {
  return owner.of === "jail" ? `jail ${owner.id}` : owner.of;
}

function ownerOfProcess(
  scope: Scope,
  pid: number,
  jails: ReadonlyMap<string, string>,
  namespaces: ReadonlyMap<string, number>,
): Owner | undefined {
  const root = processLink(pid, "root");
  const byRoot = root === undefined ? undefined : jails.get(`${root.dev}:${root.ino}`);
  if (byRoot !== undefined) return { of: "jail", id: byRoot };
  // The link of a deleted root ends in " (deleted)", which does not matter here.
  const byRootPath = root?.target.startsWith(`${scope.rootDir}/`)
    ? ownerOfPath(scope, root.target.replace(/ \(deleted\)$/, ""))
    : undefined;
  if (byRootPath !== undefined) return byRootPath;
  const cgroup = new RegExp(`/computer-host-${scope.tag}/([^/\\n]+)`).exec(text(`/proc/${pid}/cgroup`));
  if (cgroup?.[1] !== undefined) return { of: "jail", id: cgroup[1] };
  const words = commandLine(pid).split("\0");
  const jailed = words.flatMap((word) => {
    const owner = word.startsWith(`${scope.rootDir}/jails/`) ? ownerOfPath(scope, word) : undefined;
    return owner?.of === "jail" ? [owner] : [];
  })[0];
  if (jailed !== undefined) return jailed;
  // A jailer or VMM before it is jailed names its jail by id only.
  const id = words[words.indexOf("--id") + 1];
  if (words.includes("--id") && id !== undefined && [...jails.values()].includes(id))
    return { of: "jail", id };
  const netns = processLink(pid, "ns/net");
  const slot = netns === undefined ? undefined : namespaces.get(`${netns.dev}:${netns.ino}`);
  if (slot !== undefined) return { of: "slot", index: slot };
  return words.some((word) => word.includes(scope.rootDir)) ? { of: "daemon" } : undefined;
}

function commandLine(pid: number): string {
  return text(`/proc/${pid}/cmdline`);
}

/** The content of a file that may vanish while it is read. */
function text(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function ancestors(pid: number): Set<number> {
  const found = new Set<number>();
  let current = pid;
  while (current > 0 && !found.has(current)) {
    found.add(current);
    current = Number(/^PPid:\s+(\d+)/m.exec(text(`/proc/${current}/status`))?.[1] ?? 0);
  }
  return found;
}

/** Device and inode of each jail's root folder, with the jail's id. */
function jailRoots(scope: Scope): Map<string, string> {
  const found = new Map<string, string>();
  const base = `${scope.rootDir}/jails`;
  for (const executable of names(base)) {
    for (const id of names(`${base}/${executable}`)) {
      const key = inode(`${base}/${executable}/${id}/root`);
      if (key !== undefined) found.set(key, id);
    }
  }
  return found;
}

function slotNamespaces(scope: Scope): Map<string, number> {
  const found = new Map<string, number>();
  for (const { netns, slot } of places(scope)) {
    const key = netns === undefined ? undefined : inode(`/run/netns/${netns}`);
    if (slot !== undefined && key !== undefined && key !== ownNamespace()) found.set(key, slot);
  }
  return found;
}

function ownNamespace(): string | undefined {
  return inode("/proc/self/ns/net");
}

function inode(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
