import type { Stats } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { errnoOf, messageOf } from "../contract/errors.ts";
import { isId, machineId, snapshotId } from "../contract/ids.ts";
import type { HostItem, Mended, Quiet } from "../model/inventory.ts";
import { removeTrash, removeTree } from "../system/files.ts";
import type { Layout } from "./layout.ts";
import { setOwner } from "./owned-file.ts";
import type { KnownFiles, KnownMachine } from "./types.ts";

/** What writeFileDurably leaves when the daemon is killed in it. */
const TEMPORARY = /\.[0-9a-f]{8}\.tmp$/;
const NOT_AN_ID = "no machine and no snapshot can have this name, so whoever put it there removes it";

/** Folders and files under the root that are there, or should be. Looks at names and inodes only, never into a file. */
export async function inventoryOf(layout: Layout, known: KnownFiles, quiet: Quiet): Promise<HostItem[]> {
  const { machines, snapshots, staging, trash, index } = layout;
  return [
    ...(await foldersOf("machine", machines, new Set(known.machines.keys()))),
    ...(await foldersOf("snapshot", snapshots, new Set(known.snapshots.keys()))),
    ...(await filesOfMachines(layout, known, quiet)),
    ...(await filesOfSnapshots(layout, known)),
    ...(await halfMade(staging, quiet)),
    ...(await halfMade(trash, quiet)),
    ...(await halfMade(index, quiet, TEMPORARY)),
  ];
}

async function foldersOf(
  of: "machine" | "snapshot",
  folder: string,
  known: ReadonlySet<string>,
): Promise<HostItem[]> {
  const names = await namesIn(folder);
  return names.map((name) => {
    const found = { resource: "folder", name: join(folder, name), holder: { of, id: name } } as const;
    if (known.has(name)) return Object.assign(found, { status: "ok" as const });
    const detail = isId(name) ? `there is no ${of} ${name}` : NOT_AN_ID;
    return Object.assign(found, { status: "leaked" as const, detail });
  });
}

async function filesOfMachines(layout: Layout, { machines }: KnownFiles, quiet: Quiet): Promise<HostItem[]> {
  const items: HostItem[] = [];
  for (const [id, machine] of machines) {
    if (!machine.whole) continue;
    const paths = layout.machine(machineId(id));
    const holder = { of: "machine", id } as const;
    items.push(await diskItem(paths.disk, holder, machine));
    items.push(await fileItem(paths.seed, holder));
    const { folder: _folder, ...files } = paths;
    const expected = new Set(Object.values(files).map((path) => basename(path)));
    items.push(...(await halfMade(paths.folder, quiet, undefined, expected, holder)));
  }
  return items;
}

async function diskItem(path: string, holder: HostItem["holder"], { uid }: KnownMachine): Promise<HostItem> {
  const item = await fileItem(path, holder);
  const owner = (await lookAt(path))?.uid;
  if (item.status !== "ok" || owner === undefined || owner === uid) return item;
  return { ...item, status: "altered", detail: `it belongs to uid ${owner}, should to ${uid}` };
}

async function filesOfSnapshots(layout: Layout, { snapshots }: KnownFiles): Promise<HostItem[]> {
  const items: HostItem[] = [];
  for (const [id, kinds] of snapshots) {
    const paths = layout.snapshot(snapshotId(id));
    for (const kind of kinds) items.push(await fileItem(paths[kind], { of: "snapshot", id }));
  }
  return items;
}

async function fileItem(path: string, holder: HostItem["holder"]): Promise<HostItem> {
  const item = { resource: "file", name: path, holder } as const;
  const stats = await lookAt(path);
  if (stats === undefined) return { ...item, status: "missing" };
  return stats.isFile()
    ? { ...item, status: "ok" }
    : { ...item, status: "altered", detail: "it is no regular file" };
}

/** What lies in a folder whose things come and go with the work on them; without work as old as one, that one is a leak. */
async function halfMade(
  folder: string,
  quiet: Quiet,
  only?: RegExp,
  except: ReadonlySet<string> = new Set(),
  holder: HostItem["holder"] = { of: "work" },
): Promise<HostItem[]> {
  const items: HostItem[] = [];
  for (const name of await namesIn(folder)) {
    if (except.has(name) || only?.test(name) === false) continue;
    const stats = await lookAt(join(folder, name));
    if (stats === undefined) continue;
    const item = {
      resource: stats.isDirectory() ? "folder" : "file",
      name: join(folder, name),
      holder,
    } as const;
    // Its inode changes with each rename and write, so this is the time of the last work on it.
    const isNew = stats.ctimeMs >= quiet;
    items.push(
      isNew
        ? { ...item, status: "ok" }
        : { ...item, status: "leaked", detail: "nothing under way works on it" },
    );
  }
  return items;
}

/** Mends items one after another. */
export async function mendFiles(
  layout: Layout,
  items: readonly HostItem[],
  known: KnownFiles,
  quiet: Quiet,
): Promise<Mended[]> {
  const results: Mended[] = [];
  for (const item of items) {
    const { resource, name, detail } = item;
    const way = wayOf(layout, item, known, quiet);
    if (way === undefined) {
      const reason = detail ?? "nothing mends it";
      results.push({ resource, name, action: "left as it is", ok: false, reason });
      continue;
    }
    try {
      await way.mend();
      results.push({ resource, name, action: way.action, ok: true });
    } catch (error) {
      results.push({ resource, name, action: way.action, ok: false, reason: messageOf(error) });
    }
  }
  return results;
}

function wayOf(
  layout: Layout,
  { name, holder, status, detail }: HostItem,
  known: KnownFiles,
  quiet: Quiet,
): { action: string; mend: () => Promise<void> } | undefined {
  if (detail === NOT_AN_ID) return undefined;
  if (status === "leaked") {
    const mend = async (): Promise<void> => {
      const isTaken = holder.of === "work" && ((await lookAt(name))?.ctimeMs ?? 0) >= quiet;
      if (isTaken) throw new Error("somebody works on it by now");
      if (name.startsWith(`${layout.trash}/`)) await removeTrash(name, layout.trash);
      else await removeTree(name, layout.trash);
    };
    return { action: "removed", mend };
  }
  const machine = holder.of === "machine" ? known.machines.get(holder.id) : undefined;
  if (status === "altered" && machine !== undefined && name.endsWith("/disk.img")) {
    const { uid } = machine;
    return { action: "gave it back to its owner", mend: () => setOwner(name, uid, uid, 0o600) };
  }
  return undefined;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

async function lookAt(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
