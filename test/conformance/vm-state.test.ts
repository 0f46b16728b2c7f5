import assert from "node:assert/strict";
import { test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { Vmm } from "./support/vmm.ts";
import { sleep } from "./support/wait.ts";

const PAUSED = { state: "Paused" };
const RESUMED = { state: "Resumed" };

test("a paused guest stands still and goes on from where it was", async () => {
  await using vmm = await Vmm.boot("count");
  await vmm.console.waitForTick(3);
  expectDone(await vmm.call("PATCH", "/vm", PAUSED));
  assert.equal(await vmm.state(), "Paused");
  // What was on its way to the console may still arrive.
  await sleep(200);
  const still = vmm.console.text();
  await sleep(500);
  assert.equal(vmm.console.text(), still);
  const tick = vmm.console.lastTick();
  expectDone(await vmm.call("PATCH", "/vm", RESUMED));
  assert.equal(await vmm.state(), "Running");
  await vmm.console.waitForTick(tick + 3);
  assert.equal(vmm.console.text().match(/tiny-guest up/g)?.length, 1);
});

test("a second pause and a second resume are taken", async () => {
  await using vmm = await Vmm.boot("idle");
  for (const [body, state] of [
    [PAUSED, "Paused"],
    [PAUSED, "Paused"],
    [RESUMED, "Running"],
    [RESUMED, "Running"],
  ] as const) {
    expectDone(await vmm.call("PATCH", "/vm", body));
    assert.equal(await vmm.state(), state);
  }
});

test("a paused VMM still answers", async () => {
  await using vmm = await Vmm.boot("idle");
  expectDone(await vmm.call("PATCH", "/vm", PAUSED));
  expectBody(await vmm.call("GET", "/version"));
  expectBody(await vmm.call("GET", "/machine-config"));
  expectBody(await vmm.call("GET", "/vm/config"));
});

test("before the boot there is nothing to pause or resume", async () => {
  await using vmm = await Vmm.start();
  expectFault(await vmm.call("PATCH", "/vm", PAUSED));
  expectFault(await vmm.call("PATCH", "/vm", RESUMED));
  assert.equal(await vmm.state(), "Not started");
});

test("no other state can be asked for", async () => {
  await using vmm = await Vmm.boot("idle");
  for (const body of [{ state: "Running" }, { state: "Stopped" }, {}, { ...PAUSED, now: true }]) {
    expectFault(await vmm.call("PATCH", "/vm", body));
  }
  assert.equal(await vmm.state(), "Running");
});

test("GET /vm/config tells the whole configuration, before and after the boot", async () => {
  await using vmm = await Vmm.start();
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/machine-config", { vcpu_count: 2, mem_size_mib: 160 }));
  expectDone(await vmm.call("PUT", "/entropy", {}));
  const seen = async () => {
    const config = expectBody(await vmm.call("GET", "/vm/config"));
    const machine = config["machine-config"] as Record<string, unknown>;
    const source = config["boot-source"] as Record<string, unknown>;
    return {
      machine: [machine["vcpu_count"], machine["mem_size_mib"]],
      arguments: source["boot_args"],
      drives: config["drives"],
      interfaces: config["network-interfaces"],
      // How an entropy device without a limit is written is Firecracker's affair.
      entropy: typeof config["entropy"],
      without: ["balloon", "vsock"].map((name) => config[name] ?? null),
    };
  };
  const expected = {
    machine: [2, 160],
    arguments: "tiny=idle",
    drives: [],
    interfaces: [],
    entropy: "object",
    without: [null, null],
  };
  assert.deepEqual(await seen(), expected);
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  assert.deepEqual({ ...(await seen()), arguments: "tiny=idle" }, expected);
});
