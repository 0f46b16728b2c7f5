import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { parseAddress, sizeOf } from "../../../src/network/addresses.ts";
import { planSlots } from "../../../src/network/plan.ts";

const plan = planSlots({ tag: "0a1b2c", cidr: "10.200.0.0/16", uidBase: 200000 });

test("slots of a pool share nothing, lie in it, and leave its first and last address alone", () => {
  const index = fc.integer({ min: 0, max: plan.capacity - 1 });
  fc.assert(
    fc.property(index, index, (one, other) => {
      const a = plan.slot(one);
      const b = plan.slot(other);
      const host = parseAddress(a.host_address) ?? -1;
      assert.equal(host % 2, 0, "a /31 begins at an even address");
      assert.equal(parseAddress(a.runtime_host), host + 1);
      assert.ok(host > plan.pool.base && host + 1 < plan.pool.base + sizeOf(plan.pool) - 1);
      assert.ok(a.host_device.length <= 15, "the kernel takes no longer name");
      for (const key of ["netns", "host_device", "host_address", "runtime_host", "uid"] as const) {
        assert.equal(a[key] === b[key], one === other, key);
      }
    }),
  );
});

test("a name leads back to its slot's number, and names of others lead nowhere", () => {
  for (const index of [0, 9, 32765]) {
    assert.equal(plan.indexOf(plan.slot(index).netns), index);
    assert.equal(plan.indexOf(plan.slot(index).host_device), index);
  }
  for (const name of [
    "",
    "eth0",
    "ch-0a1b2c-",
    "ch-0a1b2c-01",
    "ch-0a1b2c-1x",
    "ch-ffffff-1",
    "ch0a1b2cv",
    "ch0a1b2d-1",
  ]) {
    assert.equal(plan.indexOf(name), undefined, name);
  }
});

test("a pool has half as many slots as addresses, without the two pairs at its ends", () => {
  assert.equal(plan.capacity, 32766);
  assert.equal(planSlots({ tag: "0a1b2c", cidr: "10.200.0.0/29", uidBase: 200000 }).capacity, 2);
  assert.throws(() => plan.slot(32766), RangeError);
  assert.throws(() => plan.slot(-1), RangeError);
  const widest = planSlots({ tag: "0a1b2c", cidr: "10.0.0.0/8", uidBase: 200000 });
  assert.equal(widest.slot(widest.capacity - 1).host_device, "ch0a1b2cv999999");
});

test("a pool or uid range that cannot be used is refused by the setting's name", () => {
  const unusable = [
    "10.200.0.0/30",
    "10.200.0.1/16",
    "0.0.0.0/0",
    "127.0.0.0/16",
    "172.16.0.0/12",
    "224.0.0.0/16",
    "x",
    "fd00::/64",
  ];
  for (const cidr of unusable) {
    assert.throws(
      () => planSlots({ tag: "0a1b2c", cidr, uidBase: 200000 }),
      /FIRECRACKER_HOST_NETWORK_CIDR/,
      cidr,
    );
  }
  for (const uidBase of [0, 999, 1.5, 2 ** 32 - 100]) {
    assert.throws(
      () => planSlots({ tag: "0a1b2c", cidr: "10.200.0.0/16", uidBase }),
      /FIRECRACKER_HOST_UID_BASE/,
      String(uidBase),
    );
  }
});
