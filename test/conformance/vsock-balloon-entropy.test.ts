import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { Vmm } from "./support/vmm.ts";

const START = { action_type: "InstanceStart" };

test("an entropy device is taken, again too, and the guest boots with it", async () => {
  await using vmm = await Vmm.start();
  expectDone(await vmm.call("PUT", "/entropy", {}));
  const limiter = { bandwidth: { size: 1_000, one_time_burst: 0, refill_time: 100 } };
  expectDone(await vmm.call("PUT", "/entropy", { rate_limiter: limiter }));
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", START));
  await vmm.console.waitForText("ready\n");
  expectFault(await vmm.call("PUT", "/entropy", {}));
});

test("a vsock is taken, or refused clearly where the VMM has none", async () => {
  await using vmm = await Vmm.start();
  const vsock = { guest_cid: 3, uds_path: vmm.dir.file("v.sock") };
  const answer = await vmm.call("PUT", "/vsock", vsock);
  if (answer.status === 204) {
    const kept = expectBody(await vmm.call("GET", "/vm/config"))["vsock"] as Record<string, unknown>;
    assert.deepEqual([kept["guest_cid"], kept["uds_path"]], [3, vsock.uds_path]);
  } else {
    expectFault(answer);
  }
  assert.equal(await vmm.state(), "Not started");
});

test("a balloon is kept, changed by a second PUT, and told", async () => {
  await using vmm = await Vmm.start();
  expectFault(await vmm.call("GET", "/balloon"));
  const balloon = { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 1 };
  expectDone(await vmm.call("PUT", "/balloon", { ...balloon, amount_mib: 8 }));
  expectDone(await vmm.call("PUT", "/balloon", balloon));
  const full = { ...balloon, free_page_hinting: false, free_page_reporting: false };
  assert.deepEqual(expectBody(await vmm.call("GET", "/balloon")), full);
  assert.deepEqual(expectBody(await vmm.call("GET", "/vm/config"))["balloon"], full);
  // A guest is needed for these.
  expectFault(await vmm.call("PATCH", "/balloon", { amount_mib: 4 }));
  expectFault(await vmm.call("GET", "/balloon/statistics"));
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", START));
  await vmm.console.waitForText("ready\n");
  assert.deepEqual(expectBody(await vmm.call("GET", "/balloon")), full);
  expectFault(await vmm.call("PUT", "/balloon", balloon));
});

test("a machine may not be smaller than its balloon", async () => {
  await using vmm = await Vmm.start();
  expectDone(await vmm.call("PUT", "/balloon", { amount_mib: 100, deflate_on_oom: true }));
  expectFault(await vmm.call("PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 64 }));
  expectDone(await vmm.call("PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 192 }));
});

describe("refused", () => {
  const refused: [string, string, unknown][] = [
    ["an unknown field of entropy", "/entropy", { source: "/dev/random" }],
    ["a vsock without a path", "/vsock", { guest_cid: 3 }],
    ["a vsock without a CID", "/vsock", { uds_path: "/tmp/never.sock" }],
    ["an unknown field of a vsock", "/vsock", { guest_cid: 3, uds_path: "/tmp/never.sock", port: 1 }],
    ["a vsock in a folder that is not there", "/vsock", { guest_cid: 3, uds_path: "/nowhere/v.sock" }],
    ["a balloon without an amount", "/balloon", { deflate_on_oom: true }],
    ["a balloon without a word on memory pressure", "/balloon", { amount_mib: 1 }],
    ["an unknown field of a balloon", "/balloon", { amount_mib: 1, deflate_on_oom: true, max: 2 }],
    ["a negative balloon", "/balloon", { amount_mib: -1, deflate_on_oom: true }],
    ["a balloon larger than the machine", "/balloon", { amount_mib: 1_000, deflate_on_oom: true }],
  ];
  for (const [name, path, body] of refused) {
    test(name, async () => {
      await using vmm = await Vmm.start();
      expectFault(await vmm.call("PUT", path, body));
      assert.equal(await vmm.state(), "Not started");
    });
  }
});
