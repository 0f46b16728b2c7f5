import { lstat, readdir, statfs } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../contract/errors.ts";
import { isId, machineId, snapshotId } from "../contract/ids.ts";
import type { Layout } from "./layout.ts";
import type { StorageUsage, Usage } from "./types.ts";

/** How many files are asked about at the same time: the report must not keep Node's few threads from other work. */
const AT_ONCE = 2;
/** The unit of `st_blocks`, whatever the filesystem's own blocks are. */
const STAT_BLOCK = 512;

/**
 * What the daemon's files take up. Looks one folder deep and at the inodes only, never into a file;
 * what is removed meanwhile is left out.
 */
export async function measure(layout: Layout): Promise<StorageUsage> {
  const { blocks, bavail, bsize } = await statfs(layout.root);
  const images = await usageOfFiles(layout.images);
  const machines = await inTurn((await readdir(layout.machines)).filter(isId).sort(), async (name) => {
    const id = machineId(name);
    const { disk, memoryBase } = layout.machine(id);
    const found = [await usageOfFile(disk), await usageOfFile(memoryBase)].filter((one) => one !== undefined);
    return found.length === 0 ? [] : [{ id, ...sum(found) }];
  });
  const snapshots = await inTurn((await readdir(layout.snapshots)).filter(isId).sort(), async (name) => {
    const id = snapshotId(name);
    const { files, ...usage } = await usageOfFiles(layout.snapshot(id).folder);
    return files === 0 ? [] : [{ id, ...usage }];
  });
  return { total_bytes: blocks * bsize, free_bytes: bavail * bsize, images, machines, snapshots };
}

/** Of one regular file; undefined when there is none. */
async function usageOfFile(path: string): Promise<Usage | undefined> {
  try {
    const stats = await lstat(path);
    return stats.isFile() ? { apparent_bytes: stats.size, used_bytes: stats.blocks * STAT_BLOCK } : undefined;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Of the regular files that lie directly in a folder. */
async function usageOfFiles(folder: string): Promise<Usage & { files: number }> {
  const found = await inTurn(await namesIn(folder), async (name) => {
    const usage = await usageOfFile(join(folder, name));
    return usage === undefined ? [] : [usage];
  });
  return { files: found.length, ...sum(found) };
}

function sum(usages: readonly Usage[]): Usage {
  return {
    apparent_bytes: usages.reduce((total, { apparent_bytes }) => total + apparent_bytes, 0),
    used_bytes: usages.reduce((total, { used_bytes }) => total + used_bytes, 0),
  };
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Does `work` for each name, a few at a time, and returns all results in the order of the names. */
async function inTurn<Result>(
  names: readonly string[],
  work: (name: string) => Promise<Result[]>,
): Promise<Result[]> {
  const results: Result[][] = [];
  for (let first = 0; first < names.length; first += AT_ONCE)
    results.push(...(await Promise.all(names.slice(first, first + AT_ONCE).map(work))));
  return results.flat();
}
