import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { Vmm } from "./support/vmm.ts";

const ETH0 = { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "06:00:AC:10:00:02" };

async function interfaces(vmm: Vmm): Promise<Record<string, unknown>[]> {
  const config = expectBody(await vmm.call("GET", "/vm/config"));
  return config["network-interfaces"] as Record<string, unknown>[];
}

/** Flags such as LOWER_UP, which a tap has only while somebody holds its other end. */
function linkFlags(netns: NetworkNamespace, device: string): string {
  return /<([^>]*)>/.exec(netns.ip("link", "show", "dev", device))?.[1] ?? "";
}

test("an interface takes its tap, in the VMM's namespace, and gives it back", async () => {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  assert.match(linkFlags(netns, "tap0"), /NO-CARRIER/);
  {
    await using vmm = await Vmm.start({ netns: netns.path });
    expectDone(await vmm.call("PUT", "/network-interfaces/eth0", { ...ETH0, mtu: 1_400 }));
    const [eth0, ...others] = await interfaces(vmm);
    assert.deepEqual(others, []);
    assert.equal(eth0?.["iface_id"], "eth0");
    assert.equal(eth0["host_dev_name"], "tap0");
    assert.equal(String(eth0["guest_mac"]).toUpperCase(), ETH0.guest_mac);
    assert.equal(eth0["mtu"], 1_400);
    await vmm.configureTinyGuest("idle");
    expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
    await vmm.console.waitForText("ready\n");
    assert.match(linkFlags(netns, "tap0"), /LOWER_UP/);
    assert.deepEqual(await interfaces(vmm), [eth0]);
  }
  assert.match(linkFlags(netns, "tap0"), /NO-CARRIER/);
});

test("rate limiters are taken and told, and changed bucket by bucket while the guest runs", async () => {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  await using vmm = await Vmm.start({ netns: netns.path });
  const bucket = (size: number) => ({ size, one_time_burst: null, refill_time: 100 });
  const told = async () => {
    const [eth0] = await interfaces(vmm);
    return [eth0?.["rx_rate_limiter"], eth0?.["tx_rate_limiter"]];
  };
  const rx_rate_limiter = { bandwidth: { size: 1_000_000, refill_time: 100 } };
  const tx_rate_limiter = { ops: { size: 100, refill_time: 100 } };
  expectDone(
    await vmm.call("PUT", "/network-interfaces/eth0", { ...ETH0, rx_rate_limiter, tx_rate_limiter }),
  );
  assert.deepEqual(await told(), [
    { bandwidth: bucket(1_000_000), ops: null },
    { bandwidth: null, ops: bucket(100) },
  ]);
  const change = { iface_id: "eth0", rx_rate_limiter: { ops: { size: 5, refill_time: 100 } } };
  expectFault(await vmm.call("PATCH", "/network-interfaces/eth0", change));
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  expectDone(await vmm.call("PATCH", "/network-interfaces/eth0", change));
  assert.deepEqual(await told(), [
    { bandwidth: bucket(1_000_000), ops: bucket(5) },
    { bandwidth: null, ops: bucket(100) },
  ]);
  expectFault(await vmm.call("PATCH", "/network-interfaces/eth9", { ...change, iface_id: "eth9" }));
  expectFault(await vmm.call("PATCH", "/network-interfaces/eth0", { ...change, mtu: 1_400 }));
});

test("an interface of the same id replaces the first", async () => {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  netns.addTap("tap1");
  await using vmm = await Vmm.start({ netns: netns.path });
  expectDone(await vmm.call("PUT", "/network-interfaces/eth0", ETH0));
  expectDone(await vmm.call("PUT", "/network-interfaces/eth0", { ...ETH0, host_dev_name: "tap1" }));
  assert.deepEqual(
    (await interfaces(vmm)).map((one) => one["host_dev_name"]),
    ["tap1"],
  );
});

test("two interfaces may not have the same address", async () => {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  netns.addTap("tap1");
  await using vmm = await Vmm.start({ netns: netns.path });
  expectDone(await vmm.call("PUT", "/network-interfaces/eth0", ETH0));
  const second = { ...ETH0, iface_id: "eth1", host_dev_name: "tap1" };
  expectFault(await vmm.call("PUT", "/network-interfaces/eth1", second));
});

test("two VMMs may not have the same tap", async () => {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  await using first = await Vmm.start({ netns: netns.path });
  await using second = await Vmm.start({ netns: netns.path });
  const start = { action_type: "InstanceStart" };
  expectDone(await first.call("PUT", "/network-interfaces/eth0", ETH0));
  await first.configureTinyGuest("idle");
  expectDone(await first.call("PUT", "/actions", start));
  // The tap is opened with the request or at the latest with the start.
  const put = await second.call("PUT", "/network-interfaces/eth0", ETH0);
  if (put.status === 204) {
    await second.configureTinyGuest("idle");
    expectFault(await second.call("PUT", "/actions", start));
  } else {
    expectFault(put);
  }
});

describe("refused interfaces", () => {
  const refused: [string, string, Record<string, unknown>][] = [
    ["another id in the path than in the body", "/network-interfaces/other", {}],
    ["no id in the path", "/network-interfaces", {}],
    ["a hyphen in the id", "/network-interfaces/my-net", { iface_id: "my-net" }],
    ["no device", "/network-interfaces/eth0", { host_dev_name: undefined }],
    ["an address that is none", "/network-interfaces/eth0", { guest_mac: "06:00" }],
    ["an unknown field", "/network-interfaces/eth0", { bridge: "br0" }],
    ["a device name that is too long", "/network-interfaces/eth0", { host_dev_name: "a-name-of-17-char" }],
  ];
  for (const [name, path, change] of refused) {
    test(name, async () => {
      using netns = new NetworkNamespace();
      netns.addTap("tap0");
      await using vmm = await Vmm.start({ netns: netns.path });
      expectFault(await vmm.call("PUT", path, { ...ETH0, ...change }));
      assert.deepEqual(await interfaces(vmm), []);
    });
  }
});

test("a running machine takes no further interface", async () => {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  await using vmm = await Vmm.boot("idle", { netns: netns.path });
  expectFault(await vmm.call("PUT", "/network-interfaces/eth0", ETH0));
});
