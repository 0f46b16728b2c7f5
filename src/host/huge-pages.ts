import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errnoOf } from "../contract/errors.ts";
import type { HardwareRecord } from "../model/records.ts";

/** Where the kernel tells of its pool of huge pages of 2 MiB. */
const POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const PAGE_MIB = 2;

/**
 * Refuses (`host_full`) guest memory that the host's pool of huge pages has no room for now. A VMM would find out only
 * when the guest touches a page that is not there, and die of it.
 */
export async function refuseWithoutHugePages(
  { huge_pages }: HardwareRecord,
  memory_mib: number,
  pool = POOL,
): Promise<void> {
  if (huge_pages === "None") return;
  const [free, reserved, mayAdd, added] = await Promise.all([
    countIn(pool, "free_hugepages"),
    countIn(pool, "resv_hugepages"),
    countIn(pool, "nr_overcommit_hugepages"),
    countIn(pool, "surplus_hugepages"),
  ]);
  const freeMib = Math.max(0, free - reserved + mayAdd - added) * PAGE_MIB;
  if (memory_mib <= freeMib) return;
  throw new AppError(
    "host_full",
    `the host has ${freeMib} MiB of huge pages left, and this machine wants ${memory_mib} MiB: raise vm.nr_hugepages, or leave huge_pages out`,
    { details: { field: "huge_pages", free_mib: freeMib, wanted_mib: memory_mib } },
  );
}

/** A number of pages; 0 on a kernel that has no such pool. */
async function countIn(pool: string, name: string): Promise<number> {
  try {
    return Number(await readFile(join(pool, name), "utf8"));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
}
