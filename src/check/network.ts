import { messageOf } from "../contract/errors.ts";
import { foreignDrops } from "../network/foreign-tables.ts";
import { planSlots, type SlotPlan } from "../network/plan.ts";
import { defaultRouteDevice, foreignRoute, type RouteRecord, readRoutes } from "../network/routes.ts";
import type { Settings } from "../settings.ts";
import { type Finding, fail, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

type NetworkSettings = Pick<Settings, "egressInterface" | "networkCidr" | "uidBase">;

/** How packets of guests leave the host. */
export async function networkFindings(
  files: HostFiles,
  settings: NetworkSettings,
  tag: string,
): Promise<Finding[]> {
  const tun = files.opens("/dev/net/tun")
    ? ok("tun", "/dev/net/tun opens")
    : fail("tun", "/dev/net/tun does not open: load the module tun");
  try {
    const plan = planSlots({ tag, cidr: settings.networkCidr, uidBase: settings.uidBase });
    const routes = await readRoutes();
    return [
      tun,
      poolFinding(plan, settings.networkCidr, routes),
      egressFinding(files, settings.egressInterface ?? defaultRouteDevice(routes)),
      ...(await firewall(plan)),
    ];
  } catch (error) {
    return [tun, fail("network", messageOf(error))];
  }
}

/** Addresses of the pool that are somebody else's already keep the daemon from starting. */
export function poolFinding(plan: SlotPlan, cidr: string, routes: readonly RouteRecord[]): Finding {
  const clash = foreignRoute(plan, routes);
  if (clash === undefined) return ok("pool", `${cidr}, for ${plan.capacity} machines`);
  return fail(
    "pool",
    `${cidr} overlaps the ${clash}: set FIRECRACKER_HOST_NETWORK_CIDR to a network that is free`,
  );
}

/** The daemon turns forwarding on for this one device; for all others it stays as it is. */
export function egressFinding(files: HostFiles, device: string | undefined): Finding {
  if (device === undefined) return warn("egress", "no default route: guests will have no way out");
  const forwarding = files.text(`/proc/sys/net/ipv4/conf/${device}/forwarding`);
  if (forwarding === undefined)
    return warn("egress", `there is no interface ${device}: guests will have no way out until there is`);
  return ok(
    "egress",
    forwarding === "1" ? `${device} forwards` : `${device}: a start turns its forwarding on`,
  );
}

async function firewall(plan: SlotPlan): Promise<Finding[]> {
  const drops = await foreignDrops(plan);
  if (drops.length === 0) return [ok("firewall", "no other table drops what guests send out")];
  return drops.map(({ text }) => warn("firewall", text));
}
