import { lstatSync, readdirSync, type Stats } from "node:fs";
import { relative } from "node:path";
import type { Item, Owner, Scope } from "./item.ts";
import { ownerOfPath } from "./kernel.ts";

/** Where daemons on one host tell each other what they hold. */
const CLAIMS = "/run/computer-host";

/** Files, folders, links and sockets below the root, the claims that name the tag, and the watched folders. */
export function readFiles(scope: Scope): Item[] {
  const items: Item[] = [];
  walk(scope.rootDir, (path, stat) => {
    items.push(item(path, stat, ownerOfPath(scope, path)));
    return descend(scope, path);
  });
  walk(CLAIMS, (path, stat) => {
    if (path.includes(scope.tag)) items.push(item(path, stat, { of: "daemon" }));
    return true;
  });
  for (const folder of scope.watch ?? []) {
    walk(folder, (path, stat) => {
      items.push(item(path, stat, { of: "stray" }));
      return true;
    });
  }
  return items;
}

/** A jail is looked into to its root and no deeper: a jailer may mount the system's folders below. */
function descend(scope: Scope, path: string): boolean {
  const [room, , id, root] = relative(scope.rootDir, path).split("/");
  return room !== "jails" || id === undefined || root === undefined;
}

function item(name: string, stat: Stats, owner: Owner | undefined): Item {
  const value = `${fileType(stat)} ${(stat.mode & 0o7777).toString(8).padStart(4, "0")} ${stat.uid}:${stat.gid}`;
  return { resource: "file", name, value, ...(owner === undefined ? {} : { owner }) };
}

function fileType(stat: Stats): string {
  if (stat.isDirectory()) return "folder";
  if (stat.isSymbolicLink()) return "link";
  if (stat.isSocket()) return "socket";
  return stat.isFile() ? "file" : "device";
}

/** Calls `visit` for all below `folder`; it says whether to look into a folder. Links are not followed. */
function walk(folder: string, visit: (path: string, stat: Stats) => boolean): void {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return; // Missing, or gone meanwhile.
  }
  for (const name of names.sort()) {
    const path = `${folder}/${name}`;
    let stat: Stats;
    try {
      stat = lstatSync(path);
    } catch {
      continue;
    }
    if (visit(path, stat) && stat.isDirectory()) walk(path, visit);
  }
}
