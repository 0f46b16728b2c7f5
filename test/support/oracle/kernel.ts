import { type Dirent, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import type { Item, Owner, Scope } from "./item.ts";
import { namedNamespaces, slotOfNamespace } from "./place.ts";

interface Mount {
  readonly root: string;
  readonly point: string;
  readonly type: string;
  readonly source: string;
  readonly options: string;
}

/** The mounts of our mount namespace, with spaces and the like unescaped. */
function mounts(): Mount[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .flatMap((line): Mount[] => {
      const [before, after] = line.split(" - ");
      const [, , , root, point, options] = (before ?? "").split(" ").map(unescapeOctal);
      const [type, source] = (after ?? "").split(" ").map(unescapeOctal);
      if (root === undefined || point === undefined || options === undefined) return [];
      if (type === undefined || source === undefined) return [];
      return [{ root, point, type, source, options }];
    });
}

function unescapeOctal(word: string): string {
  return word.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Named network namespaces of the daemon. */
export function readNamespaces(scope: Scope): Item[] {
  return namedNamespaces().flatMap((name): Item[] => {
    const index = slotOfNamespace(scope, name);
    if (index !== undefined)
      return [{ resource: "namespace", name, value: "", owner: { of: "slot", index } }];
    return name.startsWith(`ch-${scope.tag}`)
      ? [{ resource: "namespace", name, value: "", owner: { of: "stray" } }]
      : [];
  });
}

/** Cgroups below a parent of the daemon's, in all v1 hierarchies and in v2. */
export function readCgroups(scope: Scope): Item[] {
  const parent = `computer-host-${scope.tag}`;
  const items: Item[] = [];
  for (const mount of mounts().filter(({ type }) => type === "cgroup" || type === "cgroup2")) {
    for (const path of foldersBelow(mount.point)) {
      const words = path.split("/");
      const at = words.findIndex((word) => word.startsWith(parent));
      if (at === -1) continue;
      const jail = words[at + 1];
      const exact = words[at] === parent;
      items.push({
        resource: "cgroup",
        name: join(mount.point, path),
        value: "",
        owner: !exact ? { of: "stray" } : jail === undefined ? { of: "daemon" } : { of: "jail", id: jail },
      });
    }
  }
  // A hierarchy may be mounted at several places, and /sys/fs/cgroup may hold links: one name is one thing.
  return [...new Map(items.map((item) => [item.name, item])).values()];
}

function* foldersBelow(base: string, below = ""): Generator<string> {
  let entries: Dirent[];
  try {
    entries = readdirSync(join(base, below), { withFileTypes: true });
  } catch {
    return; // Gone since we read its parent.
  }
  for (const entry of entries) {
    if (!entry.isDirectory()) continue;
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    yield path;
    yield* foldersBelow(base, path);
  }
}

/** Mounts on, below or from the daemon's root. */
export function readMounts(scope: Scope): Item[] {
  const under = `${scope.rootDir}/`;
  return mounts()
    .filter(({ root, point, source }) => [root, point, source].some((path) => path.startsWith(under)))
    .map(({ root, point, type, source, options }) => ({
      resource: "mount",
      name: `${point} (${type} ${source}${root === "/" ? "" : ` ${root}`})`,
      value: options,
      owner: ownerOfPath(scope, point) ?? { of: "stray" },
    }));
}

/** Loop devices over files of the daemon's, also over deleted ones. */
export function readLoops(scope: Scope): Item[] {
  return readdirSync("/sys/block").flatMap((device): Item[] => {
    if (!device.startsWith("loop")) return [];
    let file: string;
    try {
      file = readFileSync(`/sys/block/${device}/loop/backing_file`, "utf8").trim();
    } catch {
      return []; // Not bound to a file.
    }
    if (!file.startsWith(`${scope.rootDir}/`)) return [];
    return [{ resource: "loop", name: `/dev/${device} over ${file}`, value: "", owner: { of: "stray" } }];
  });
}

/** Folders of the root that hold one folder for each thing of a kind. */
const ROOMS = { machines: "machine", snapshots: "snapshot" } as const;

/** Whom a path below the root belongs to; undefined when it lies elsewhere. */
export function ownerOfPath(scope: Scope, path: string): Owner | undefined {
  const [room, first, second] = relative(scope.rootDir, path).split("/");
  if (room === undefined || room === "..") return undefined;
  if ((room === "machines" || room === "snapshots") && first !== undefined) {
    return { of: ROOMS[room], id: first };
  }
  if (room === "jails" && second !== undefined) return { of: "jail", id: second };
  return { of: "daemon" };
}
