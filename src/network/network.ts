import type { Warning } from "../contract/health.ts";
import type { HostItem } from "../model/inventory.ts";
import type { Log } from "../system/log.ts";
import { sideBySide } from "../system/side-by-side.ts";
import {
  daemonItems,
  elementItems,
  interiorItems,
  looksWhole,
  slotItems,
  viewFromHere,
} from "./audit/inventory.ts";
import { listTable } from "./audit/listing.ts";
import { mendNetwork, mendSlot, type NetworkMeans } from "./audit/mending.ts";
import { lookInside } from "./audit/slot-interior.ts";
import { CLAIMS_DIR, type Claim, claim, claimOf, unclaim, writeClaim } from "./claim.ts";
import { allowedRange, chooseEgress, refuseClash } from "./choices.ts";
import { Egress } from "./egress.ts";
import { foreignDrops } from "./foreign-tables.ts";
import { installTable, OPENED_SET, readOpened, removeTable, tableName } from "./host-table.ts";
import { makeSlot, slotExists, unmakeSlots } from "./making.ts";
import { planSlots, type SlotNames } from "./plan.ts";
import { MOST_MAKINGS, SlotPool } from "./pool.ts";
import { readResolvers } from "./resolvers.ts";
import { blockUnusedAddresses, foreignRoute, readRoutes, unblockUnusedAddresses } from "./routes.ts";
import { findSlots } from "./sweep.ts";
import { enableForwarding, hasDevice, isForwarding } from "./sysctl.ts";
import type { Network, Slot } from "./types.ts";
import { misroutedResolvers, noEgress, stuckSlots, tableRemoved } from "./warnings.ts";

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

/** Into how many slots a look of "some" looks. */
const LOOKS_INSIDE = 4;

/** The network room. Throws an Error that names the setting when a setting cannot be used. */
export function createNetwork(options: NetworkOptions): Network {
  const { log, claimsDir = CLAIMS_DIR, warningsMaxAgeMs = 10_000 } = options;
  const plan = planSlots(options);
  const egressAllow = options.egressAllow.map(allowedRange);
  let egressInterface: string | undefined;
  let resolvers: readonly string[] = [];
  let startWarnings: readonly Warning[] = [];
  let pool: SlotPool | undefined;
  let lastWarnings: { at: number; warnings: Warning[] } | undefined;
  let ownClaim: Claim | undefined;
  /** The table and the rules of a slot as nft tells them right after they were made: what later listings are compared with. */
  let tableText: string | undefined;
  let slotRules: string | undefined;
  let lookedInto = 0;

  const install = async (): Promise<void> => {
    const opened = [...egress.opened.values()];
    await installTable(plan, { egressInterface, egressAllow, resolvers, opened });
    tableText = (await listTable(tableName(plan), OPENED_SET))?.text;
  };

  const egress = new Egress({ plan, install, log });

  const learnRules = async (slot: Slot): Promise<void> => {
    slotRules ??= (await lookInside([slot])).get(slot.index)?.rules;
  };

  const make = async (slot: Slot): Promise<void> => {
    // A making that outlived a killed daemon can have come after this one's sweep.
    if (slotExists(slot)) await unmakeSlots([slot]);
    try {
      await makeSlot(slot);
      await learnRules(slot);
    } catch (error) {
      await unmakeSlots([slot]);
      throw error;
    }
  };

  const openedPool = (): SlotPool => {
    if (pool === undefined) throw new Error("The network room is not open.");
    return pool;
  };

  const means: NetworkMeans = {
    slot: (index) => plan.slot(index),
    putClaimBack: () => writeClaim(plan.tag, ownClaim ?? claimOf(plan, options.rootDir), claimsDir),
    async putTableBack() {
      using _turn = await egress.turn();
      await install();
    },
    putRouteBack: () => blockUnusedAddresses(plan),
    setForwarding() {
      if (egressInterface !== undefined) enableForwarding(egressInterface, log);
    },
    openEgress: (slot) => egress.open(slot),
    async removeSlot(index, quiet) {
      const since = openedPool().inUse.get(index);
      if (since === undefined) return await openedPool().sweep(index);
      if (since >= quiet) throw new Error("work is under way that may have taken it");
      openedPool().release(plan.slot(index));
      await openedPool().settled(index);
    },
    replaceReady: (index) => openedPool().replace(index),
    indexOf: (name) => plan.indexOf(name),
  };

  return {
    async open(inUse, living = new Map()) {
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
      ownClaim = claimOf(plan, options.rootDir);
      await claim(plan.tag, ownClaim, inUse.length > 0, claimsDir);
      if (inUse.length === 0) undo.defer(() => unclaim(plan.tag, claimsDir));

      const wereOpened = await readOpened(plan);
      egress.adopt(inUse.filter((index) => wereOpened?.has(index)).map((index) => plan.slot(index)));
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
      // What can be seen from here, in no time however many there are; what is inside is looked at behind the start.
      const here = viewFromHere();
      const wrong = inUse.filter((index) => !looksWhole(plan.slot(index), living.get(index), here));
      await sideBySide(wrong, MOST_MAKINGS, async (index) => {
        const slot = plan.slot(index);
        // One slot that cannot be mended must not keep the daemon, and with it all other machines, from starting.
        await mendSlot(slot, living.get(index)).catch((error: unknown) =>
          log.error({ slot: slot.netns, error }, "the network slot of a machine could not be mended"),
        );
      });
      startWarnings = [
        ...choice.warnings,
        ...(egressInterface === undefined
          ? [noEgress()]
          : await misroutedResolvers(resolvers, egressInterface)),
      ];
      const unmake = async (names: SlotNames): Promise<void> => {
        const slot = egress.opened.get(names.index);
        if (slot !== undefined) await egress.close(slot);
        await unmakeSlots([names]);
      };
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

    openEgress: (slot) => egress.open(slot),

    closeEgress: (slot) => egress.close(slot),

    async release(slot) {
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
      using _turn = await egress.turn();
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

    async inventory(held, quiet, look) {
      const facts = () => ({
        plan,
        pool: openedPool(),
        claim: ownClaim ?? claimOf(plan, options.rootDir),
        claimsDir,
        egressInterface,
        opened: egress.opened,
        table: tableText,
        slotRules,
      });
      // Before the first wait: what records and pool say must be of the same moment as what is on the host.
      const slots = slotItems(facts(), held, quiet);
      const listed = async (): Promise<HostItem[]> => {
        using _turn = await egress.turn();
        const listing = await listTable(tableName(plan), OPENED_SET);
        return [...daemonItems(facts(), listing), ...elementItems(facts(), listing)];
      };
      const seen = [...(await listed()), ...slots];
      const indices = [...held.map(({ index }) => index), ...openedPool().ready];
      const chosen = look === "all" ? indices : inTurn(indices, lookedInto, LOOKS_INSIDE);
      lookedInto += chosen.length;
      const named = new Set(
        slots.flatMap(({ resource, name, status }) =>
          resource === "namespace" && status === "ok" ? [name] : [],
        ),
      );
      const places = chosen.map((index) => plan.slot(index)).filter(({ netns }) => named.has(netns));
      const interiors = await lookInside(places);
      return [...seen, ...interiorItems(facts(), interiors, held, seen)];
    },

    mend: (items, held, quiet) => mendNetwork(means, items, held, quiet),

    async close() {
      const closing = openedPool();
      await closing.close();
      if (closing.inUse.size > 0 || closing.stuck.size > 0) return;
      // Nothing of this root runs: the host is left as it was found, apart from forwarding, which others may use by now.
      using _turn = await egress.turn();
      await removeTable(plan);
      await unblockUnusedAddresses(plan);
      unclaim(plan.tag, claimsDir);
    },
  };
}

/** `count` of the items, another part of them as `offset` grows. */
function inTurn(items: readonly number[], offset: number, count: number): readonly number[] {
  if (items.length <= count) return items;
  return Array.from({ length: count }, (_, place) => items[(offset + place) % items.length] ?? 0);
}
