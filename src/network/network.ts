import type { Warning } from "../contract/health.ts";
import type { Log } from "../system/log.ts";
import { KeyedMutex } from "../system/mutex.ts";
import { run } from "../system/run.ts";
import { type Cidr, parseCidr } from "./addresses.ts";
import { CLAIMS_DIR, claim, claimOf, unclaim } from "./claim.ts";
import { foreignDrops } from "./foreign-tables.ts";
import { addOpened, deleteOpened, installTable, readOpened, removeTable } from "./host-table.ts";
import { makeSlot, slotExists, unmakeSlots } from "./making.ts";
import { planSlots } from "./plan.ts";
import { SlotPool } from "./pool.ts";
import { readResolvers } from "./resolvers.ts";
import {
  blockUnusedAddresses,
  defaultRouteDevice,
  foreignRoute,
  type RouteRecord,
  readRoutes,
  unblockUnusedAddresses,
} from "./routes.ts";
import { findSlots } from "./sweep.ts";
import { enableForwarding, hasDevice, isForwarding } from "./sysctl.ts";
import type { Network, Slot } from "./types.ts";

export interface NetworkOptions {
  /** Six hex digits that mark everything of this root on the host. */
  readonly tag: string;
  /** The root's real path: the claim on the pool lasts as long as it exists. */
  readonly rootDir: string;
  readonly cidr: string;
  /** True when nobody chose the pool: the sentence about a clash says so. */
  readonly cidrIsDefault?: boolean;
  /** Undefined: the default route's. */
  readonly egressInterface?: string | undefined;
  /** CIDRs of denied ranges that guests may reach all the same. */
  readonly egressAllow: readonly string[];
  /** Empty: the host's own. */
  readonly dns: readonly string[];
  readonly uidBase: number;
  readonly poolSize: number;
  readonly log: Log;
  /** For tests that must not see claims of others. */
  readonly claimsDir?: string;
  /** How long an answer of `warnings` is used again, in milliseconds: reading a large ruleset is slow. Default 10,000. */
  readonly warningsMaxAgeMs?: number;
}

/** The network room. Throws an Error that names the setting when a setting cannot be used. */
export function createNetwork(options: NetworkOptions): Network {
  const { log, claimsDir = CLAIMS_DIR, warningsMaxAgeMs = 10_000 } = options;
  const plan = planSlots(options);
  const egressAllow = options.egressAllow.map(allowedRange);
  /** Holds the key "table" across each change, so that a whole table never overwrites a change made meanwhile. */
  const changes = new KeyedMutex();
  const opened = new Map<number, Slot>();
  let egressInterface: string | undefined;
  let resolvers: readonly string[] = [];
  let startWarnings: readonly Warning[] = [];
  let pool: SlotPool | undefined;
  let lastWarnings: { at: number; warnings: Warning[] } | undefined;

  const install = (): Promise<void> =>
    installTable(plan, { egressInterface, egressAllow, resolvers, opened: [...opened.values()] });

  /** Makes one change to the table; when somebody removed the table, puts it back with the change in it. */
  const changeTable = async (change: () => Promise<void>): Promise<void> => {
    try {
      await change();
    } catch (error) {
      if ((await readOpened(plan)) !== undefined) throw error;
      log.warn({}, "somebody removed this daemon's nftables table; it was put back");
      await install();
    }
  };

  const make = async (slot: Slot): Promise<void> => {
    // A making that outlived a killed daemon can have come after this one's sweep.
    if (slotExists(slot)) await unmakeSlots([slot]);
    try {
      await makeSlot(slot);
    } catch (error) {
      await unmakeSlots([slot]);
      throw error;
    }
  };

  const closeEgress = async (slot: Slot): Promise<void> => {
    using _turn = await changes.acquire("table");
    opened.delete(slot.index);
    await changeTable(() => deleteOpened(plan, slot));
  };

  const openedPool = (): SlotPool => {
    if (pool === undefined) throw new Error("The network room is not open.");
    return pool;
  };

  return {
    async open(inUse) {
      const beyond = inUse.find((index) => index >= plan.capacity);
      if (beyond !== undefined) {
        throw new Error(
          `A machine holds network slot ${beyond}, but the pool ${options.cidr} has only ${plan.capacity}. Set FIRECRACKER_HOST_NETWORK_CIDR back to the network that the machines were made on.`,
        );
      }
      const routes = await readRoutes();
      refuseClash(foreignRoute(plan, routes), options);
      egressInterface = chooseEgress(options.egressInterface, routes);
      const choice = readResolvers(options.dns);
      resolvers = choice.resolvers;

      await using undo = new AsyncDisposableStack();
      await claim(plan.tag, claimOf(plan, options.rootDir), inUse.length > 0, claimsDir);
      if (inUse.length === 0) undo.defer(() => unclaim(plan.tag, claimsDir));

      const wereOpened = await readOpened(plan);
      for (const index of inUse) if (wereOpened?.has(index)) opened.set(index, plan.slot(index));
      await install();
      if (inUse.length === 0) undo.defer(() => removeTable(plan));
      await blockUnusedAddresses(plan);
      if (egressInterface !== undefined) enableForwarding(egressInterface, log);

      const leftovers = findSlots(plan).filter(({ index }) => !inUse.includes(index));
      if (leftovers.length > 0) {
        await unmakeSlots(leftovers);
        log.info(
          { slots: leftovers.map(({ netns }) => netns) },
          "removed network slots that no machine holds",
        );
      }
      for (const index of inUse) {
        // One slot that cannot be mended must not keep the daemon, and with it all other machines, from starting.
        await makeSlot(plan.slot(index)).catch((error: unknown) =>
          log.error(
            { slot: plan.slot(index).netns, error },
            "the network slot of a machine could not be mended",
          ),
        );
      }
      startWarnings = [
        ...choice.warnings,
        ...(egressInterface === undefined
          ? [noEgress()]
          : await misroutedResolvers(resolvers, egressInterface)),
      ];
      const unmake = (slot: Slot): Promise<void> => unmakeSlots([slot]);
      pool = new SlotPool({ plan, size: options.poolSize, make, unmake, log }, inUse);
      undo.move();
      log.info(
        {
          pool: options.cidr,
          slots: plan.capacity,
          in_use: inUse.length,
          egress: egressInterface ?? null,
          resolvers,
        },
        "the network is ready",
      );
    },

    acquire: async (signal, preferred) => openedPool().acquire(signal, preferred),

    slot: (index) => plan.slot(index),

    async openEgress(slot) {
      using _turn = await changes.acquire("table");
      opened.set(slot.index, slot);
      await changeTable(() => addOpened(plan, slot));
    },

    closeEgress,

    async release(slot) {
      await closeEgress(slot);
      openedPool().release(slot);
    },

    get resolvers() {
      return resolvers;
    },

    async warnings() {
      if (lastWarnings !== undefined && performance.now() - lastWarnings.at < warningsMaxAgeMs) {
        return lastWarnings.warnings;
      }
      const warnings = [...startWarnings];
      using _turn = await changes.acquire("table");
      if (pool !== undefined && (await readOpened(plan)) === undefined) {
        await install();
        warnings.push(tableRemoved());
        log.warn({}, "somebody removed this daemon's nftables table; it was put back");
      }
      if (egressInterface !== undefined && hasDevice(egressInterface) && !isForwarding(egressInterface)) {
        enableForwarding(egressInterface, log);
      }
      warnings.push(...(await foreignDrops(plan)));
      if (pool !== undefined && pool.stuck.size > 0) warnings.push(stuckSlots(pool.stuck.size));
      lastWarnings = { at: performance.now(), warnings };
      return warnings;
    },

    async close() {
      const closing = openedPool();
      await closing.close();
      if (closing.inUse.size > 0 || closing.stuck.size > 0) return;
      // Nothing of this root runs: the host is left as it was found, apart from forwarding, which others may use by now.
      using _turn = await changes.acquire("table");
      await removeTable(plan);
      await unblockUnusedAddresses(plan);
      unclaim(plan.tag, claimsDir);
    },
  };
}

function allowedRange(text: string): Cidr {
  const range = parseCidr(text);
  if (range === undefined) {
    throw new Error(
      `FIRECRACKER_HOST_EGRESS_ALLOW holds "${text}": each must be an IPv4 address or network, such as 10.1.2.0/24.`,
    );
  }
  return range;
}

function refuseClash(route: string | undefined, options: NetworkOptions): void {
  if (route === undefined) return;
  const which =
    options.cidrIsDefault === true ? `The default pool ${options.cidr}` : `The pool ${options.cidr}`;
  throw new Error(
    `${which} of guests' addresses overlaps the host's ${route}. Set FIRECRACKER_HOST_NETWORK_CIDR to a network that this host does not use.`,
  );
}

function chooseEgress(setting: string | undefined, routes: readonly RouteRecord[]): string | undefined {
  if (setting === undefined) return defaultRouteDevice(routes);
  if (!hasDevice(setting)) {
    throw new Error(
      `FIRECRACKER_HOST_EGRESS_INTERFACE is "${setting}", and this host has no such interface.`,
    );
  }
  return setting;
}

/** Guests are forwarded to the egress interface only, also to their resolvers. */
async function misroutedResolvers(resolvers: readonly string[], egress: string): Promise<Warning[]> {
  const warnings: Warning[] = [];
  for (const resolver of resolvers) {
    const { code, stdout } = await run(["ip", "-j", "route", "get", resolver], { okCodes: [0, 1, 2] });
    const [route] = code === 0 ? (JSON.parse(stdout) as { dev?: string }[]) : [];
    if (route?.dev === egress || route?.dev === "lo") continue;
    warnings.push({
      code: "resolver_not_by_egress",
      severity: "warning",
      text: `The resolver ${resolver} is not reached by the egress interface ${egress}, the only one that guests are forwarded to. Set FIRECRACKER_HOST_DNS to a resolver that is.`,
    });
  }
  return warnings;
}

function noEgress(): Warning {
  return {
    code: "no_egress_interface",
    severity: "warning",
    text: "The host has no default route, so guests have no way out. Set FIRECRACKER_HOST_EGRESS_INTERFACE, or restart the daemon once there is a default route.",
  };
}

function tableRemoved(): Warning {
  return {
    code: "table_was_removed",
    severity: "error",
    text: "Somebody removed this daemon's nftables table (a reload of the host's firewall with \"flush ruleset\" does that). It was put back; in between guests were not held to its rules.",
  };
}

function stuckSlots(count: number): Warning {
  return {
    code: "slots_stuck",
    severity: "warning",
    text: `${count} released network slots could not be removed from the host and are not used again before the daemon's next start; the log names them.`,
  };
}
