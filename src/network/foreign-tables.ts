import { existsSync, readFileSync } from "node:fs";
import type { Warning } from "../contract/health.ts";
import { messageOf } from "../contract/errors.ts";
import { run } from "../system/run.ts";
import type { SlotPlan } from "./plan.ts";

interface Ruleset {
  readonly nftables: readonly {
    readonly chain?: {
      readonly family: string;
      readonly table: string;
      readonly name: string;
      readonly hook?: string;
      readonly policy?: string;
    };
    readonly rule?: {
      readonly family: string;
      readonly table: string;
      readonly chain: string;
      readonly expr: readonly Readonly<Record<string, unknown>>[];
    };
  }[];
}

/**
 * Chains of other tables at the forward hook that drop what they do not know, as `family table chain`, from the text
 * of `nft -j list ruleset`. An accept in our table does not override them: every table must let a packet pass.
 * One that lists our devices by name is taken to know us.
 */
export function droppingChains(plan: SlotPlan, rulesetJson: string): string[] {
  const { nftables } = JSON.parse(rulesetJson) as Ruleset;
  const rules = nftables.flatMap(({ rule }) => rule ?? []);
  return nftables.flatMap(({ chain }) => {
    if (chain === undefined || chain.hook !== "forward" || !["ip", "inet"].includes(chain.family)) return [];
    if (chain.table.startsWith("computer-host-")) return [];
    const ofTable = rules.filter(({ family, table }) => family === chain.family && table === chain.table);
    if (JSON.stringify(ofTable).includes(`"${plan.devicePrefix}`)) return [];
    const last = ofTable.findLast(({ chain: name }) => name === chain.name);
    const drops = chain.policy === "drop" || (last !== undefined && dropsAll(last.expr));
    return drops ? [`${chain.family} ${chain.table} ${chain.name}`] : [];
  });
}

/** True when a rule drops or rejects without a condition; a counter beside the verdict changes nothing. */
function dropsAll(expressions: readonly Readonly<Record<string, unknown>>[]): boolean {
  const verdicts = expressions.filter((expression) => !("counter" in expression));
  return verdicts.length === 1 && verdicts.some((verdict) => "drop" in verdict || "reject" in verdict);
}

/** Reads the host's rules, the old iptables' too, and warns of each foreign chain that drops forwarding. */
export async function foreignDrops(plan: SlotPlan): Promise<Warning[]> {
  let found: string[];
  try {
    found = droppingChains(plan, (await run(["nft", "-j", "list", "ruleset"])).stdout);
  } catch (error) {
    // A ruleset of many megabytes, or one in words that this nft does not know, must not break the host's health report.
    const text = `The host's firewall rules could not be read, so whether they let guests out is not known: ${messageOf(error)}`;
    return [{ code: "foreign_rules_unreadable", severity: "info", text }];
  }
  if (await legacyForwardDrops(plan)) found.push("ip filter FORWARD (iptables-legacy)");
  return found.map((chain) => ({
    code: "foreign_forward_drop",
    severity: "warning",
    text: `The firewall chain "${chain}" drops forwarded packets that it does not know, and this daemon never changes rules of others: guests may have no way out. Let packets from and to devices "${plan.devicePrefix}*" pass there (with Docker: in the chain DOCKER-USER, as "-i ${plan.devicePrefix}+ -j ACCEPT" and "-o ${plan.devicePrefix}+ -j ACCEPT").`,
  }));
}

/** nft does not show the rules of iptables-legacy; this file names its tables once one is in use. */
async function legacyForwardDrops(plan: SlotPlan): Promise<boolean> {
  const names = "/proc/self/net/ip_tables_names";
  if (!existsSync(names) || !/^filter$/m.test(readFileSync(names, "utf8"))) return false;
  if (!["/usr/sbin", "/sbin"].some((folder) => existsSync(`${folder}/iptables-legacy`))) return false;
  const { code, stdout } = await run(["iptables-legacy", "-w", "-S"], { okCodes: [0, 1, 3, 4] });
  return code === 0 && /^-P FORWARD DROP$/m.test(stdout) && !stdout.includes(plan.devicePrefix);
}
