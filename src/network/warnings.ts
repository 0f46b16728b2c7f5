import type { Warning } from "../contract/health.ts";
import { run } from "../system/run.ts";

/** Guests are forwarded to the egress interface only, also to their resolvers. */
export async function misroutedResolvers(resolvers: readonly string[], egress: string): Promise<Warning[]> {
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

/** See its text. */
export function noEgress(): Warning {
  return {
    code: "no_egress_interface",
    severity: "warning",
    text: "The host has no default route, so guests have no way out. Set FIRECRACKER_HOST_EGRESS_INTERFACE, or restart the daemon once there is a default route.",
  };
}

/** See its text. */
export function tableRemoved(): Warning {
  return {
    code: "table_was_removed",
    severity: "error",
    text: "Somebody removed this daemon's nftables table (a reload of the host's firewall with \"flush ruleset\" does that). It was put back; in between guests were not held to its rules.",
  };
}

/** See its text. */
export function stuckSlots(count: number): Warning {
  return {
    code: "slots_stuck",
    severity: "warning",
    text: `${count} released network slots could not be removed from the host and are not used again until they are; the daemon goes on trying, and the log names them.`,
  };
}
