import { type Cidr, parseCidr } from "./addresses.ts";
import { defaultRouteDevice, type RouteRecord } from "./routes.ts";
import { hasDevice } from "./sysctl.ts";

/** One of the ranges of FIRECRACKER_HOST_EGRESS_ALLOW. Throws an Error that names the setting. */
export function allowedRange(text: string): Cidr {
  const range = parseCidr(text);
  if (range === undefined) {
    throw new Error(
      `FIRECRACKER_HOST_EGRESS_ALLOW holds "${text}": each must be an IPv4 address or network, such as 10.1.2.0/24.`,
    );
  }
  return range;
}

/** Throws an Error that names the setting when `route`, somebody else's, shares addresses with the pool. */
export function refuseClash(
  route: string | undefined,
  options: { readonly cidr: string; readonly cidrIsDefault?: boolean },
): void {
  if (route === undefined) return;
  const which =
    options.cidrIsDefault === true ? `The default pool ${options.cidr}` : `The pool ${options.cidr}`;
  throw new Error(
    `${which} of guests' addresses overlaps the host's ${route}. Set FIRECRACKER_HOST_NETWORK_CIDR to a network that this host does not use.`,
  );
}

/** The device by which guests go out: the setting's, or the default route's. Throws an Error when there is none of that name. */
export function chooseEgress(
  setting: string | undefined,
  routes: readonly RouteRecord[],
): string | undefined {
  if (setting === undefined) return defaultRouteDevice(routes);
  if (!hasDevice(setting)) {
    throw new Error(
      `FIRECRACKER_HOST_EGRESS_INTERFACE is "${setting}", and this host has no such interface.`,
    );
  }
  return setting;
}
