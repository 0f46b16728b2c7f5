import assert from "node:assert/strict";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import {
  create,
  filesIn,
  type Files,
  load,
  pause,
  restore,
  resume,
  takeSnapshot,
} from "./support/snapshot.ts";
import { tinyGuest } from "./support/tiny-guest.ts";
import { Vmm } from "./support/vmm.ts";
import { WorkDir } from "./support/workdir.ts";

test("what a loaded VMM may be asked, and what it may not", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  await using vmm = await restore(dir, "copy", load(files, { resume_vm: false }));
  const ctrlAltDel = { action_type: "SendCtrlAltDel" };
  expectDone(await vmm.call("PUT", "/actions", ctrlAltDel));
  await pause(vmm);
  expectDone(await vmm.call("PUT", "/snapshot/create", create(filesIn(dir, "again"))));
  await resume(vmm);
  await resume(vmm);
  await vmm.console.waitForTick(tick + 2);
  expectDone(await vmm.call("PUT", "/actions", ctrlAltDel));
  for (const [path, body] of [
    ["/actions", { action_type: "InstanceStart" }],
    ["/boot-source", { kernel_image_path: tinyGuest() }],
    ["/machine-config", { vcpu_count: 1, mem_size_mib: 128 }],
    ["/serial", { serial_out_path: vmm.consolePath }],
    ["/logger", { level: "Info" }],
    ["/metrics", { metrics_path: dir.file("metrics") }],
    ["/entropy", {}],
    ["/mmds", {}],
  ] as const) {
    expectFault(await vmm.call("PUT", path, body));
  }
  assert.equal(await vmm.state(), "Running");
});

test("a loaded VMM tells what its guest was booted from", async () => {
  using dir = new WorkDir();
  const { state, memory } = await takeSnapshot(dir);
  await using vmm = await restore(dir, "copy", load({ state, memory }));
  assert.deepEqual(expectBody(await vmm.call("GET", "/vm/config"))["boot-source"], {
    kernel_image_path: tinyGuest(),
    initrd_path: null,
    boot_args: "tiny=count",
  });
});

test("the fields that a load may carry", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  const taken: [string, Record<string, unknown>, Record<string, unknown>][] = [
    ["track", { track_dirty_pages: true }, { track_dirty_pages: true }],
    ["by-its-old-name", { enable_diff_snapshots: true }, { track_dirty_pages: true }],
    ["nothing", {}, { track_dirty_pages: false, huge_pages: "None" }],
    ["ordinary-pages", { huge_pages: "None" }, { huge_pages: "None" }],
    ["transparent", { huge_pages: "Transparent" }, { huge_pages: "Transparent" }],
    ["as-it-was", { huge_pages: "Snapshot", clock_realtime: true }, { huge_pages: "None" }],
  ];
  for (const [name, more, expected] of taken) {
    await using vmm = await restore(dir, name, load(files, more));
    const config = expectBody(await vmm.call("GET", "/machine-config"));
    assert.deepEqual({ ...config, ...expected }, config, name);
    await vmm.console.waitForTick(tick + 2);
  }
});

test("what is given before a load and does not end the chance of one", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  await using vmm = await Vmm.start({ dir, socketName: "copy" });
  writeFileSync(dir.file("log"), "");
  for (const [path, body] of [
    ["/serial", { serial_out_path: vmm.consolePath, rate_limiter: { size: 65_536, refill_time: 1_000 } }],
    ["/logger", { log_path: dir.file("log"), level: "Info" }],
    ["/metrics", { metrics_path: dir.file("metrics") }],
    ["/mmds", { latest: {} }],
  ] as const) {
    expectDone(await vmm.call("PUT", path, body));
  }
  expectDone(await vmm.call("PUT", "/snapshot/load", load(files)));
  await vmm.console.waitForTick(tick + 2);
});

describe("a load that fails is answered with 400 and ends the VMM with 1", () => {
  let shared: WorkDir;
  let whole: Files;
  before(async () => {
    shared = new WorkDir();
    whole = await takeSnapshot(shared);
  });
  after(() => shared[Symbol.dispose]());

  /** What is loaded in place of the snapshot's state, made in `dir`. */
  const state = (change: (bytes: Buffer) => Buffer) => (dir: WorkDir) => {
    writeFileSync(dir.file("state"), change(readFileSync(whole.state)));
    return load({ ...whole, state: dir.file("state") });
  };
  const flip = (at: (length: number) => number) =>
    state((bytes) => {
      const offset = at(bytes.length);
      bytes[offset] = (bytes[offset] ?? 0) ^ 1;
      return bytes;
    });
  const memory = (bytes: number) => (dir: WorkDir) => {
    writeFileSync(dir.file("memory"), "");
    truncateSync(dir.file("memory"), bytes);
    return load({ ...whole, memory: dir.file("memory") });
  };
  const eth9 = { iface_id: "eth9", host_dev_name: "tap0" };
  const refused: [string, (dir: WorkDir) => unknown, RegExp][] = [
    ["no state file", () => load({ ...whole, state: "/nowhere/state" }), /No such file/],
    ["no memory file", () => load({ ...whole, memory: "/nowhere/memory" }), /No such file/],
    ["a folder as the state", () => load({ ...whole, state: "/tmp" }), /Is a directory/],
    ["a folder as the memory", () => load({ ...whole, memory: "/tmp" }), /guest memory/],
    ["a state of nonsense", state(() => Buffer.from("nonsense".repeat(1_000))), /snapshot state/],
    ["an empty state", state(() => Buffer.alloc(0)), /snapshot state/],
    ["half of the state", state((bytes) => bytes.subarray(0, bytes.length >> 1)), /snapshot state/],
    ["the state but for its last byte", state((bytes) => bytes.subarray(0, -1)), /snapshot state/],
    ["a state that goes on", state((bytes) => Buffer.concat([bytes, Buffer.from("x")])), /snapshot state/],
    ["a bit of the state's first byte", flip(() => 0), /snapshot state/],
    ["a bit near the state's front", flip(() => 21), /snapshot state/],
    ["a bit in the middle of the state", flip((length) => length >> 1), /CRC64/],
    ["a bit of the state's last byte", flip((length) => length - 1), /CRC64/],
    ["half of the memory", memory(64 << 20), /guest memory/],
    ["the memory but for its last page", memory((128 << 20) - 4096), /guest memory/],
    ["an empty memory", memory(0), /guest memory/],
    ["the two files swapped", () => load({ state: whole.memory, memory: whole.state }), /snapshot state/],
    ["a file mapped into pages of the pool", () => load(whole, { huge_pages: "2M" }), /hugetlbfs/],
    [
      "an interface that the guest has not",
      () => load(whole, { network_overrides: [eth9] }),
      /Unknown Network/,
    ],
    [
      "a vsock that the guest has not",
      () => load(whole, { vsock_override: { uds_path: "/v" } }),
      /Unknown Vsock/,
    ],
  ];
  for (const [name, body, words] of refused) {
    test(name, async () => {
      await using vmm = await Vmm.start();
      assert.match(expectFault(await vmm.call("PUT", "/snapshot/load", body(vmm.dir))), words);
      assert.deepEqual(await vmm.exit(), { code: 1, signal: null });
    });
  }
});
