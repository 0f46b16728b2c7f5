import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { Vmm } from "./support/vmm.ts";

const DEFAULTS = {
  vcpu_count: 1,
  mem_size_mib: 128,
  smt: false,
  track_dirty_pages: false,
  huge_pages: "None",
};

test("an unconfigured machine has Firecracker's defaults", async () => {
  await using vmm = await Vmm.start();
  assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), DEFAULTS);
});

test("PUT replaces, PATCH changes what it names, GET tells both", async () => {
  await using vmm = await Vmm.start();
  const full = { vcpu_count: 2, mem_size_mib: 256, smt: true, track_dirty_pages: true, huge_pages: "None" };
  expectDone(await vmm.call("PUT", "/machine-config", full));
  assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), full);
  expectDone(await vmm.call("PATCH", "/machine-config", { mem_size_mib: 192 }));
  assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), { ...full, mem_size_mib: 192 });
  // What a PUT leaves out falls back to the default.
  expectDone(await vmm.call("PUT", "/machine-config", { vcpu_count: 4, mem_size_mib: 160 }));
  const expected = { ...DEFAULTS, vcpu_count: 4, mem_size_mib: 160 };
  assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), expected);
});

describe("a refused machine-config changes nothing", () => {
  const good = { vcpu_count: 1, mem_size_mib: 128 };
  const refused: [string, string, unknown][] = [
    ["no memory size", "PUT", { vcpu_count: 1 }],
    ["no vCPU count", "PUT", { mem_size_mib: 128 }],
    ["no vCPU", "PUT", { ...good, vcpu_count: 0 }],
    ["33 vCPUs", "PUT", { ...good, vcpu_count: 33 }],
    ["256 vCPUs", "PUT", { ...good, vcpu_count: 256 }],
    ["a negative vCPU count", "PUT", { ...good, vcpu_count: -1 }],
    ["a fraction of a vCPU", "PUT", { ...good, vcpu_count: 1.5 }],
    ["three vCPUs with SMT", "PUT", { ...good, vcpu_count: 3, smt: true }],
    ["no memory", "PUT", { ...good, mem_size_mib: 0 }],
    ["memory as a string", "PUT", { ...good, mem_size_mib: "128" }],
    ["smt as a number", "PUT", { ...good, smt: 1 }],
    ["an unknown size of pages", "PUT", { ...good, huge_pages: "1G" }],
    ["a CPU template that is none", "PUT", { ...good, cpu_template: "V1N1" }],
    ["tracking of pages as a string", "PUT", { ...good, track_dirty_pages: "yes" }],
    ["an odd size with 2M pages", "PUT", { ...good, mem_size_mib: 129, huge_pages: "2M" }],
    ["an unknown field", "PUT", { ...good, hostname: "a" }],
    ["an unknown field in a PATCH", "PATCH", { hostname: "a" }],
    ["an empty PATCH", "PATCH", {}],
    ["no vCPU in a PATCH", "PATCH", { vcpu_count: 0 }],
    ["a list", "PUT", []],
  ];
  let vmm: Vmm;
  before(async () => (vmm = await Vmm.start()));
  after(async () => await vmm[Symbol.asyncDispose]());
  for (const [name, method, body] of refused) {
    test(name, async () => {
      expectFault(await vmm.call(method, "/machine-config", body));
      assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), DEFAULTS);
    });
  }
});

test("the guest sees the memory that was asked for", async () => {
  await using vmm = await Vmm.start();
  expectDone(await vmm.call("PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 256 }));
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  await vmm.console.waitForText("ready\n");
  const kib = Number(vmm.console.fact("memory_kib"));
  assert.ok(kib <= 256 * 1024 && kib > 254 * 1024, `${kib} KiB`);
});

test("a running machine keeps its config", async () => {
  await using vmm = await Vmm.boot("idle");
  expectFault(await vmm.call("PUT", "/machine-config", { vcpu_count: 2, mem_size_mib: 256 }));
  expectFault(await vmm.call("PATCH", "/machine-config", { vcpu_count: 2 }));
  assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), DEFAULTS);
});

/** Why this machine's start is refused; afterwards the VMM starts another one. */
async function refusedStart(config: Record<string, unknown>): Promise<string> {
  await using vmm = await Vmm.start();
  const plain = { vcpu_count: 1, mem_size_mib: 128, cpu_template: "None", huge_pages: "None" };
  expectDone(await vmm.call("PUT", "/machine-config", { ...plain, ...config }));
  await vmm.configureTinyGuest("idle");
  const start = { action_type: "InstanceStart" };
  const words = expectFault(await vmm.call("PUT", "/actions", start));
  assert.equal(await vmm.state(), "Not started");
  expectDone(await vmm.call("PUT", "/machine-config", plain));
  expectDone(await vmm.call("PUT", "/actions", start));
  return words;
}

test("a CPU template for another maker's CPUs is taken as a field and refused at the start", async () => {
  const isIntel = /^vendor_id\s*: GenuineIntel$/m.test(readFileSync("/proc/cpuinfo", "utf8"));
  for (const cpu_template of isIntel ? ["T2A"] : ["C3", "T2", "T2S", "T2CL"]) {
    assert.match(await refusedStart({ cpu_template }), /CPU vendor mismatched/, cpu_template);
  }
});

test("the template None is none, and no field of the answer", async () => {
  await using vmm = await Vmm.start();
  const answer = await vmm.call("PUT", "/machine-config", {
    vcpu_count: 1,
    mem_size_mib: 128,
    cpu_template: "None",
  });
  expectDone(answer);
  assert.equal(answer.headers["deprecation"], "true");
  assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), DEFAULTS);
});

test("2M pages are refused at the start when the host's pool has too few", async () => {
  const free = /^HugePages_Free:\s*(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
  const mem_size_mib = 2 * Number(free ?? 0) + 128;
  assert.match(await refusedStart({ mem_size_mib, huge_pages: "2M" }), /Unable to read kernel image/);
});

test("a guest runs with transparent huge pages, SMT and its dirty pages tracked", async () => {
  await using vmm = await Vmm.start();
  const config = {
    vcpu_count: 2,
    mem_size_mib: 128,
    smt: true,
    track_dirty_pages: true,
    huge_pages: "Transparent",
  };
  expectDone(await vmm.call("PUT", "/machine-config", config));
  await vmm.configureTinyGuest("count");
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  await vmm.console.waitForTick(2);
  assert.deepEqual(expectBody(await vmm.call("GET", "/machine-config")), config);
});
