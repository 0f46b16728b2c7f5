import { run } from "../system/run.ts";
import { type Cidr, formatCidr, overlaps, parseCidr } from "./addresses.ts";
import type { SlotPlan } from "./plan.ts";

/** Marks our route among those of others (`ip route` prints it as the route's protocol). */
const OUR_PROTOCOL = "196";
/** A route this wide is a default route or half of one (as VPNs add them): it clashes with nothing. */
const WIDEST_DEFAULT_PREFIX = 1;

/** What `ip -j route` says of a route, as far as it is read here. */
export interface RouteRecord {
  readonly type?: string;
  readonly dst: string;
  readonly dev?: string;
  readonly table?: string;
  readonly protocol?: string;
  readonly metric?: number;
  readonly nexthops?: readonly { readonly dev?: string }[];
}

/** All IPv4 routes of this namespace, of every table; addresses of the host appear as routes of type local. */
export async function readRoutes(): Promise<RouteRecord[]> {
  const { stdout } = await run(["ip", "-j", "-4", "route", "show", "table", "all"]);
  return stdout.trim() === "" ? [] : (JSON.parse(stdout) as RouteRecord[]);
}

/** The device of the best default route of the main table, or undefined when there is none. */
export function defaultRouteDevice(routes: readonly RouteRecord[]): string | undefined {
  return routes
    .filter(({ dst, table, type }) => dst === "default" && table === undefined && type === undefined)
    .sort((one, other) => (one.metric ?? 0) - (other.metric ?? 0))
    .flatMap(({ dev, nexthops }) => dev ?? nexthops?.[0]?.dev ?? [])[0];
}

/** The first route of somebody else that shares addresses with the pool, as a sentence's part, or undefined. */
export function foreignRoute(plan: SlotPlan, routes: readonly RouteRecord[]): string | undefined {
  const clash = routes.find((route) => {
    const cidr = destination(route);
    if (cidr === undefined || cidr.prefix <= WIDEST_DEFAULT_PREFIX || !overlaps(cidr, plan.pool))
      return false;
    return !isOurs(plan, route, cidr);
  });
  if (clash === undefined) return undefined;
  const kind = clash.type === undefined ? "" : `${clash.type} `;
  return `${kind}route ${clash.dst}${clash.dev === undefined ? "" : ` on ${clash.dev}`}`;
}

function destination(route: RouteRecord): Cidr | undefined {
  return route.dst === "default" ? undefined : parseCidr(route.dst);
}

function isOurs(plan: SlotPlan, route: RouteRecord, cidr: Cidr): boolean {
  if (route.dev !== undefined) {
    return route.dev.startsWith(plan.devicePrefix) && plan.indexOf(route.dev) !== undefined;
  }
  return route.protocol === OUR_PROTOCOL && formatCidr(cidr) === formatCidr(plan.pool);
}

/**
 * Makes addresses of the pool that no machine has unreachable at once. Without this a connection to a machine that is
 * gone would follow the default route, out of the host, to whoever has that address there.
 */
export async function blockUnusedAddresses(plan: SlotPlan): Promise<void> {
  await run(["ip", "route", "replace", ...poolRoute(plan)]);
}

/** Takes that route back; content when it is not there. */
export async function unblockUnusedAddresses(plan: SlotPlan): Promise<void> {
  await run(["ip", "route", "del", ...poolRoute(plan)], { okCodes: [0, 2] });
}

function poolRoute(plan: SlotPlan): string[] {
  return ["unreachable", formatCidr(plan.pool), "proto", OUR_PROTOCOL];
}
