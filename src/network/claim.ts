import { readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { ensureDirectory, writeFileDurably } from "../system/files.ts";
import { formatCidr, overlaps, parseCidr } from "./addresses.ts";
import type { SlotPlan } from "./plan.ts";

/** Under /run: a claim ends with the boot, as everything that it claims does. */
export const CLAIMS_DIR = "/run/computer-host/claims";

/** What one root has taken of the host. */
export interface Claim {
  readonly root: string;
  readonly cidr: string;
  /** The network namespace that the daemon runs in: pools of different ones do not meet. */
  readonly network_namespace: string;
  readonly uid_base: number;
  readonly uid_count: number;
}

/** What this root would claim. */
export function claimOf(plan: SlotPlan, rootDir: string): Claim {
  return {
    root: rootDir,
    cidr: formatCidr(plan.pool),
    network_namespace: readlinkSync("/proc/self/ns/net"),
    uid_base: plan.uidBase,
    uid_count: plan.capacity,
  };
}

/**
 * Why the two cannot stand side by side, as a sentence that names the setting to change, or undefined.
 * Uids belong to the whole host, pools to a network namespace.
 */
export function claimClash(ours: Claim, other: Claim): string | undefined {
  const pool = parseCidr(ours.cidr);
  const otherPool = parseCidr(other.cidr);
  if (
    ours.network_namespace === other.network_namespace &&
    pool !== undefined &&
    otherPool !== undefined &&
    overlaps(pool, otherPool)
  ) {
    return `The pool ${ours.cidr} overlaps ${other.cidr}, which the daemon with the root ${other.root} has claimed. Set FIRECRACKER_HOST_NETWORK_CIDR to another network.`;
  }
  if (ours.uid_base < other.uid_base + other.uid_count && other.uid_base < ours.uid_base + ours.uid_count) {
    return `The uids ${rangeOf(ours)} overlap ${rangeOf(other)}, which the daemon with the root ${other.root} has claimed. Set FIRECRACKER_HOST_UID_BASE to ${other.uid_base + other.uid_count} or another free range.`;
  }
  return undefined;
}

function rangeOf(claim: Claim): string {
  return `${claim.uid_base} to ${claim.uid_base + claim.uid_count - 1}`;
}

/**
 * Claims pool and uids for a root. Throws an Error with a sentence for the operator when another root that still
 * exists has them, or when this root's machines (`inUse`) run on what it claimed before and the settings changed.
 */
export async function claim(
  tag: string,
  ours: Claim,
  inUse: boolean,
  directory: string = CLAIMS_DIR,
): Promise<void> {
  await ensureDirectory(directory, 0o755);
  const own = join(directory, `${tag}.json`);
  const before = readClaim(own);
  if (inUse && before !== undefined && (before.cidr !== ours.cidr || before.uid_base !== ours.uid_base)) {
    throw new Error(
      `Machines run on the pool ${before.cidr} with uids from ${before.uid_base}. Set FIRECRACKER_HOST_NETWORK_CIDR and FIRECRACKER_HOST_UID_BASE back to these, or stop the machines before changing them.`,
    );
  }
  // Written first, compared second: of two that start at the same time at least one sees the other.
  await writeFileDurably(own, `${JSON.stringify(ours)}\n`, 0o644);
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    const other = path === own || !name.endsWith(".json") ? undefined : readClaim(path);
    if (other === undefined) continue;
    const clash = claimClash(ours, other);
    if (clash === undefined) continue;
    if (await exists(other.root)) {
      if (before === undefined) rmSync(own, { force: true });
      else await writeFileDurably(own, `${JSON.stringify(before)}\n`, 0o644);
      throw new Error(clash);
    }
    rmSync(path, { force: true });
  }
}

/** This root's claim as it is written down, where it can be read. */
export function readOwnClaim(
  tag: string,
  directory: string = CLAIMS_DIR,
): { readonly path: string; readonly claim: Claim | undefined } {
  const path = join(directory, `${tag}.json`);
  return { path, claim: readClaim(path) };
}

/** Writes down again what this root has claimed before. */
export async function writeClaim(tag: string, ours: Claim, directory: string = CLAIMS_DIR): Promise<void> {
  await ensureDirectory(directory, 0o755);
  await writeFileDurably(join(directory, `${tag}.json`), `${JSON.stringify(ours)}\n`, 0o644);
}

/** Gives a root's claim back; content when there is none. */
export function unclaim(tag: string, directory: string = CLAIMS_DIR): void {
  rmSync(join(directory, `${tag}.json`), { force: true });
}

async function exists(root: string): Promise<boolean> {
  return stat(root).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/** A claim that cannot be read claims nothing: it is replaced by its owner at its next start. */
function readClaim(path: string): Claim | undefined {
  try {
    const value = JSON.parse(readFileSync(path, "utf8")) as Partial<Claim>;
    const { root, cidr, network_namespace, uid_base, uid_count } = value;
    if (typeof root !== "string" || typeof cidr !== "string" || typeof network_namespace !== "string")
      return undefined;
    if (typeof uid_base !== "number" || typeof uid_count !== "number") return undefined;
    return { root, cidr, network_namespace, uid_base, uid_count };
  } catch {
    return undefined;
  }
}
