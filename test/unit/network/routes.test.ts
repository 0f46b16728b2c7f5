import assert from "node:assert/strict";
import { test } from "node:test";
import { planSlots } from "../../../src/network/plan.ts";
import { defaultRouteDevice, foreignRoute } from "../../../src/network/routes.ts";

const plan = planSlots({ tag: "0a1b2c", cidr: "10.200.0.0/16", uidBase: 200000 });

test("the way out is the default route of the lowest metric in the main table", () => {
  assert.equal(defaultRouteDevice([]), undefined);
  assert.equal(
    defaultRouteDevice([
      { dst: "default", dev: "wlan0", metric: 600 },
      { dst: "default", dev: "vpn0", table: "52" },
      { dst: "default", type: "unreachable", metric: 1 },
      { dst: "default", dev: "eth0", metric: 100 },
      { dst: "10.0.0.0/24", dev: "eth1" },
    ]),
    "eth0",
  );
  assert.equal(
    defaultRouteDevice([{ dst: "default", nexthops: [{ dev: "eth2" }, { dev: "eth3" }] }]),
    "eth2",
  );
});

test("a route, an address or a table of others within or around the pool is a clash", () => {
  assert.equal(foreignRoute(plan, [{ dst: "10.200.4.0/24", dev: "eth1" }]), "route 10.200.4.0/24 on eth1");
  assert.equal(
    foreignRoute(plan, [{ dst: "10.0.0.0/8", dev: "tun0", table: "100" }]),
    "route 10.0.0.0/8 on tun0",
  );
  assert.equal(
    foreignRoute(plan, [{ type: "local", dst: "10.200.0.1", dev: "br0", table: "local" }]),
    "local route 10.200.0.1 on br0",
  );
  assert.equal(
    foreignRoute(plan, [{ dst: "10.200.0.2/31", dev: "chffffffv0" }]),
    "route 10.200.0.2/31 on chffffffv0",
  );
});

test("our own routes, default routes and their halves, and neighbours of the pool are none", () => {
  assert.equal(
    foreignRoute(plan, [
      { dst: "default", dev: "eth0" },
      { dst: "0.0.0.0/1", dev: "tun0" },
      { dst: "10.201.0.0/16", dev: "eth1" },
      { dst: "10.200.0.2/31", dev: "ch0a1b2cv0" },
      { type: "local", dst: "10.200.0.2", dev: "ch0a1b2cv0", table: "local" },
      { type: "unreachable", dst: "10.200.0.0/16", protocol: "196" },
    ]),
    undefined,
  );
});
