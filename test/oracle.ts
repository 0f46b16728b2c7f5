import { setTimeout as sleep } from "node:timers/promises";
import { readFiles } from "./support/oracle/files.ts";
import type { Difference, Inventory, Item, Scope } from "./support/oracle/item.ts";
import { readCgroups, readLoops, readMounts, readNamespaces } from "./support/oracle/kernel.ts";
import { readLinks, readRoutes, readRules, readSysctls } from "./support/oracle/network.ts";
import { readNftables } from "./support/oracle/nftables.ts";
import { type Place, places } from "./support/oracle/place.ts";
import { readProcesses } from "./support/oracle/processes.ts";
import { readSockets } from "./support/oracle/sockets.ts";

export { compareWithBefore } from "./support/oracle/compare.ts";
export {
  type Circumstances,
  expectedFromAnswers,
  expectedFromFiles,
} from "./support/oracle/expected.ts";
export type { Difference, Inventory, Item, Scope } from "./support/oracle/item.ts";
export { compareWithState, type ExpectedMachine, type ExpectedState } from "./support/oracle/state.ts";

/** How long `settle` waits for work behind answers (sweeps of slots, jails, trash). */
const SETTLE_MS = 5_000;
/** A look at many slots takes seconds, and what moves meanwhile is seen half-way: one alone, however late, proves nothing. */
const LEAST_LOOKS = 3;

/**
 * The judge of every end-to-end test: what exists on the host, read from the kernel and never from the daemon.
 *
 *     const before = await takeInventory(scope);
 *     …
 *     assert.deepEqual(await settle(async () => compareWithBefore(before, await takeInventory(scope))), []);
 *
 * A namespace that vanishes while it is read is read as gone.
 */
export async function takeInventory(scope: Scope): Promise<Inventory> {
  const items: Item[] = [
    ...readProcesses(scope),
    ...readNamespaces(scope),
    ...readCgroups(scope),
    ...readMounts(scope),
    ...readLoops(scope),
    ...readFiles(scope),
  ];
  for (const place of places(scope)) items.push(...(await readPlace(scope, place)));
  return { scope, items };
}

async function readPlace(scope: Scope, place: Place): Promise<Item[]> {
  try {
    const parts = await Promise.all([
      readLinks(scope, place),
      readRoutes(scope, place),
      readNftables(scope, place),
      readSockets(scope, place),
      ...(place.slot === undefined ? [readRules(place), readSysctls(place)] : []),
    ]);
    return parts.flat();
  } catch (error) {
    // A slot may be unmade behind an answer at any moment; the namespace that plays the host may not.
    if (place.slot === undefined || places(scope).some(({ netns }) => netns === place.netns)) throw error;
    return [];
  }
}

/**
 * Asks `judge` again until it finds nothing, for at most `timeoutMs` (default 5 seconds), since the daemon sweeps
 * behind its answers. Returns the last differences; `explain` makes them readable.
 */
export async function settle(
  judge: () => Promise<readonly Difference[]>,
  timeoutMs = SETTLE_MS,
): Promise<readonly Difference[]> {
  const end = performance.now() + timeoutMs;
  for (let look = 1; ; look += 1) {
    const differences = await judge();
    if (differences.length === 0 || (look >= LEAST_LOOKS && performance.now() >= end)) return differences;
    await sleep(200);
  }
}

/** The differences as lines that a person can read. */
export function explain(differences: readonly Difference[]): string {
  return differences
    .map(
      ({ kind, resource, what, owner }) =>
        `${kind} ${resource}: ${what}${owner === undefined ? "" : ` (${owner})`}`,
    )
    .join("\n");
}
