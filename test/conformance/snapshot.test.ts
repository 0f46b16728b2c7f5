import assert from "node:assert/strict";
import { statSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { expectDone, expectFault } from "./support/api.ts";
import { create, filesIn, load, restore, takeSnapshot } from "./support/snapshot.ts";
import { tinyGuest } from "./support/tiny-guest.ts";
import { Vmm } from "./support/vmm.ts";
import { sleep } from "./support/wait.ts";
import { WorkDir } from "./support/workdir.ts";

test("a snapshot is taken of a paused guest, which then goes on", async () => {
  using dir = new WorkDir();
  const files = filesIn(dir);
  await using vmm = await Vmm.boot("count", { dir });
  await vmm.console.waitForTick(3);
  expectFault(await vmm.call("PUT", "/snapshot/create", create(files)));
  expectDone(await vmm.call("PATCH", "/vm", { state: "Paused" }));
  expectDone(await vmm.call("PUT", "/snapshot/create", create(files)));
  assert.ok(statSync(files.state).size > 0);
  assert.ok(statSync(files.memory).size > 0);
  assert.equal(await vmm.state(), "Paused");
  const tick = vmm.console.lastTick();
  expectDone(await vmm.call("PATCH", "/vm", { state: "Resumed" }));
  await vmm.console.waitForTick(tick + 3);
});

test("the type is Full when nothing is said, and an older snapshot's files are overwritten", async () => {
  using dir = new WorkDir();
  const files = filesIn(dir);
  writeFileSync(files.state, "old");
  writeFileSync(files.memory, "old");
  await using source = await Vmm.boot("count", { dir, socketName: "source" });
  expectDone(await source.call("PATCH", "/vm", { state: "Paused" }));
  const body = { snapshot_path: files.state, mem_file_path: files.memory };
  expectDone(await source.call("PUT", "/snapshot/create", body));
  await using copy = await restore(dir, "copy", load(files));
  await copy.console.waitForText("tick ");
});

test("a loaded guest goes on from where it was, under its new VMM's id", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  await using vmm = await restore(dir, "copy", load(files));
  assert.equal(await vmm.state(), "Running");
  await vmm.console.waitForTick(tick + 3);
  assert.doesNotMatch(vmm.console.text(), /tiny-guest up/);
  const first = Number(/tick (\d+)\n/.exec(vmm.console.text())?.[1]);
  assert.ok(first <= tick + 2, `went on at ${first}, was at ${tick}`);
});

test("a guest that is loaded without resume_vm waits", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  await using vmm = await restore(dir, "copy", load(files, { resume_vm: false }));
  assert.equal(await vmm.state(), "Paused");
  await sleep(300);
  assert.equal(vmm.console.lastTick(), -1);
  expectDone(await vmm.call("PATCH", "/vm", { state: "Resumed" }));
  await vmm.console.waitForTick(tick + 3);
});

test("one snapshot is loaded twice at the same time, from files nobody may write", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  const before = statSync(files.memory).mtimeMs;
  await using one = await restore(dir, "one", load(files));
  await using two = await restore(dir, "two", load(files));
  await one.console.waitForTick(tick + 5);
  await two.console.waitForTick(tick + 5);
  assert.equal(statSync(files.memory).mtimeMs, before);
});

test("a loaded guest can be paused and taken again", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  await using first = await restore(dir, "first", load(files));
  await first.console.waitForTick(tick + 3);
  expectDone(await first.call("PATCH", "/vm", { state: "Paused" }));
  const again = { state: dir.file("again.state"), memory: dir.file("again.memory") };
  expectDone(await first.call("PUT", "/snapshot/create", create(again)));
  await using second = await restore(dir, "second", load(again));
  await second.console.waitForTick(first.console.lastTick() + 3);
});

test("a loaded VMM has the machine's size, its own id, and takes no second load", async () => {
  using dir = new WorkDir();
  const { state, memory } = await takeSnapshot(dir);
  const files = { state, memory };
  await using vmm = await restore(dir, "copy", load(files));
  const config = JSON.parse((await vmm.call("GET", "/machine-config")).text) as Record<string, unknown>;
  assert.deepEqual([config["vcpu_count"], config["mem_size_mib"]], [1, 128]);
  expectFault(await vmm.call("PUT", "/snapshot/load", load(files)));
  assert.equal(await vmm.state(), "Running");
});

test("the fields that a load may carry are taken", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  const more = { network_overrides: [], track_dirty_pages: false, clock_realtime: false };
  await using vmm = await restore(dir, "copy", load(files, more));
  await vmm.console.waitForTick(tick + 3);
});

describe("a refused create leaves the guest as it was", () => {
  const refused: [string, (dir: WorkDir) => unknown][] = [
    ["no path for the memory", (dir) => ({ snapshot_path: dir.file("s") })],
    ["no path for the state", (dir) => ({ mem_file_path: dir.file("m") })],
    ["an unknown type", (dir) => create(filesIn(dir), "Half")],
    ["an unknown field", (dir) => ({ ...create(filesIn(dir)), version: "1.0.0" })],
    ["a folder that is not there", () => create({ state: "/nowhere/s", memory: "/nowhere/m" })],
  ];
  for (const [name, body] of refused) {
    test(name, async () => {
      await using vmm = await Vmm.boot("count");
      expectDone(await vmm.call("PATCH", "/vm", { state: "Paused" }));
      expectFault(await vmm.call("PUT", "/snapshot/create", body(vmm.dir)));
      assert.equal(await vmm.state(), "Paused");
      expectDone(await vmm.call("PATCH", "/vm", { state: "Resumed" }));
      await vmm.console.waitForTick(vmm.console.lastTick() + 2);
    });
  }
  test("before the boot", async () => {
    await using vmm = await Vmm.start();
    expectFault(await vmm.call("PUT", "/snapshot/create", create(filesIn(vmm.dir))));
  });
});

describe("a load that is refused as a request leaves the VMM usable", () => {
  const files = { state: "/nowhere/s", memory: "/nowhere/m" };
  const refused: [string, unknown][] = [
    ["no memory", { snapshot_path: files.state }],
    ["no state", { mem_backend: { backend_type: "File", backend_path: files.memory } }],
    ["both ways of naming the memory", { ...load(files), mem_file_path: files.memory }],
    ["an unknown field", load(files, { uid: 1 })],
    ["an unknown backend", load(files, { mem_backend: { backend_type: "Tape", backend_path: "/m" } })],
    ["an unknown field in the backend", load(files, { mem_backend: { backend_type: "File", path: "/m" } })],
  ];
  for (const [name, body] of refused) {
    test(name, async () => {
      await using vmm = await Vmm.start();
      expectFault(await vmm.call("PUT", "/snapshot/load", body));
      await vmm.configureTinyGuest("idle");
      expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
    });
  }
  for (const [path, body] of [
    ["/boot-source", { kernel_image_path: tinyGuest() }],
    ["/machine-config", { vcpu_count: 1, mem_size_mib: 128 }],
    ["/entropy", {}],
  ] as const) {
    test(`after PUT ${path}`, async () => {
      using dir = new WorkDir();
      const { state, memory } = await takeSnapshot(dir);
      await using vmm = await Vmm.start({ dir });
      expectDone(await vmm.call("PUT", path, body));
      expectFault(await vmm.call("PUT", "/snapshot/load", load({ state, memory })));
      assert.equal(await vmm.state(), "Not started");
    });
  }
  test("a running guest", async () => {
    await using vmm = await Vmm.boot("idle");
    expectFault(await vmm.call("PUT", "/snapshot/load", load(files)));
    assert.equal(await vmm.state(), "Running");
  });
});
