import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { Vmm } from "./support/vmm.ts";

test("what is put is what is got, and a patch merges", async () => {
  await using vmm = await Vmm.start();
  assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), {});
  expectDone(await vmm.call("PUT", "/mmds", { latest: { "meta-data": { "instance-id": "a", ami: "x" } } }));
  const patch = { latest: { "meta-data": { ami: null, hostname: "h" } }, more: [1, true] };
  expectDone(await vmm.call("PATCH", "/mmds", patch));
  assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), {
    latest: { "meta-data": { "instance-id": "a", hostname: "h" } },
    more: [1, true],
  });
  expectDone(await vmm.call("PUT", "/mmds", { only: "this" }));
  assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), { only: "this" });
});

test("a store that would grow over the limit of a body is refused with 413 and stays", async () => {
  await using vmm = await Vmm.start({ args: ["--http-api-max-payload-size", "200"] });
  const first = { a: "a".repeat(120) };
  expectDone(await vmm.call("PUT", "/mmds", first));
  expectFault(await vmm.call("PATCH", "/mmds", { b: "b".repeat(120) }), 413);
  assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), first);
});

test("a store may be as large as a body, and a larger body is no request", async () => {
  const limit = 2 * 1024 * 1024;
  await using vmm = await Vmm.start({ args: ["--http-api-max-payload-size", String(limit)] });
  const data = (bytes: number) => ({ a: "a".repeat(bytes - 8) });
  expectDone(await vmm.call("PUT", "/mmds", data(60_000)));
  expectDone(await vmm.call("PUT", "/mmds", data(limit)));
  assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), data(limit));
  expectFault(await vmm.call("PATCH", "/mmds", { b: 1 }), 413);
  const refused = await vmm.call("PUT", "/mmds", data(limit + 1));
  assert.equal(refused.status, 400);
  assert.match(refused.text, /larger than the limit of 2097152/);
  // What came before it stays, and the VMM answers on.
  assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), data(limit));
});

async function withInterface(check: (vmm: Vmm) => Promise<void>): Promise<void> {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  await using vmm = await Vmm.start({ netns: netns.path });
  const eth0 = { iface_id: "eth0", host_dev_name: "tap0" };
  expectDone(await vmm.call("PUT", "/network-interfaces/eth0", eth0));
  await check(vmm);
}

test("a config for an interface is kept", async () => {
  await withInterface(async (vmm) => {
    const config = { version: "V2", network_interfaces: ["eth0"], ipv4_address: "169.254.169.250" };
    expectDone(await vmm.call("PUT", "/mmds/config", config));
    const kept = expectBody(await vmm.call("GET", "/vm/config"))["mmds-config"] as Record<string, unknown>;
    assert.deepEqual({ ...config, ...kept }, kept);
  });
});

test("the store is kept while the guest runs", async () => {
  await withInterface(async (vmm) => {
    expectDone(await vmm.call("PUT", "/mmds/config", { version: "V2", network_interfaces: ["eth0"] }));
    expectDone(await vmm.call("PUT", "/mmds", { a: 1 }));
    await vmm.configureTinyGuest("idle");
    expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
    expectDone(await vmm.call("PATCH", "/mmds", { b: 2 }));
    assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), { a: 1, b: 2 });
    expectFault(await vmm.call("PUT", "/mmds/config", { version: "V2", network_interfaces: ["eth0"] }));
  });
});

describe("refused", () => {
  const refused: [string, string, string, unknown][] = [
    ["a config for no interface", "PUT", "/mmds/config", { network_interfaces: [] }],
    ["a config for an interface that is not there", "PUT", "/mmds/config", { network_interfaces: ["eth9"] }],
    ["a config that names no interfaces", "PUT", "/mmds/config", { version: "V2" }],
    ["an unknown version", "PUT", "/mmds/config", { version: "V3", network_interfaces: ["eth0"] }],
    ["an unknown field", "PUT", "/mmds/config", { network_interfaces: ["eth0"], mtu: 1 }],
    [
      "an address that is not link-local",
      "PUT",
      "/mmds/config",
      { network_interfaces: ["eth0"], ipv4_address: "10.0.0.1" },
    ],
    ["an unknown path", "PUT", "/mmds/other", {}],
    ["broken JSON", "PUT", "/mmds", "{"],
    ["a patch before anything was put", "PATCH", "/mmds", { a: 1 }],
  ];
  for (const [name, method, path, body] of refused) {
    test(name, async () => {
      await withInterface(async (vmm) => {
        expectFault(await vmm.call(method, path, body));
      });
    });
  }
});
