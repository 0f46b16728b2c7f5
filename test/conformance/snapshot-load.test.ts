import assert from "node:assert/strict";
import { readFileSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { NetworkNamespace } from "./support/netns.ts";
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

describe("the fields of a load", () => {
  const taken: [string, Record<string, unknown>, Record<string, unknown>][] = [
    ["track_dirty_pages", { track_dirty_pages: true }, { track_dirty_pages: true }],
    ["enable_diff_snapshots, its old name", { enable_diff_snapshots: true }, { track_dirty_pages: true }],
    ["nothing of the kind", {}, { track_dirty_pages: false, huge_pages: "None" }],
    ["huge_pages Transparent", { huge_pages: "Transparent" }, { huge_pages: "Transparent" }],
    ["huge_pages as they were", { huge_pages: "Snapshot" }, { huge_pages: "None" }],
    ["clock_realtime", { clock_realtime: true }, {}],
  ];
  for (const [name, more, expected] of taken) {
    test(name, async () => {
      using dir = new WorkDir();
      const { tick, ...files } = await takeSnapshot(dir);
      await using vmm = await restore(dir, "copy", load(files, more));
      const config = expectBody(await vmm.call("GET", "/machine-config"));
      assert.deepEqual({ ...config, ...expected }, config);
      await vmm.console.waitForTick(tick + 2);
    });
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

describe("a damaged snapshot is answered with 400 and ends the VMM with 1", () => {
  const flip = (at: (length: number) => number) => (files: Files) => {
    const bytes = readFileSync(files.state);
    const offset = at(bytes.length);
    bytes[offset] = (bytes[offset] ?? 0) ^ 1;
    writeFileSync(files.state, bytes);
  };
  const MEMORY = 128 << 20;
  const broken: [string, (files: Files) => unknown, RegExp][] = [
    ["a bit of the state's first byte", flip(() => 0), /snapshot state/],
    ["a bit near the state's front", flip(() => 21), /snapshot state/],
    ["a bit in the middle of the state", flip((length) => length >> 1), /CRC64/],
    ["a bit of the state's last byte", flip((length) => length - 1), /CRC64/],
    ["a state that goes on", (files) => writeFileSync(files.state, "x", { flag: "a" }), /snapshot state/],
    [
      "a state without its last byte",
      (files) => truncateSync(files.state, readFileSync(files.state).length - 1),
      /snapshot state/,
    ],
    ["a folder as the state", (files) => (files.state = "/tmp"), /Is a directory/],
    [
      "a memory file one page too short",
      (files) => truncateSync(files.memory, MEMORY - 4096),
      /guest memory/,
    ],
    ["an empty memory file", (files) => truncateSync(files.memory, 0), /guest memory/],
    [
      "the two files swapped",
      (files) => ([files.state, files.memory] = [files.memory, files.state]),
      /snapshot state/,
    ],
  ];
  for (const [name, damage, words] of broken) {
    test(name, async () => {
      using dir = new WorkDir();
      const { state, memory } = await takeSnapshot(dir);
      const files = { state, memory };
      damage(files);
      await using vmm = await Vmm.start({ dir, socketName: "load" });
      assert.match(expectFault(await vmm.call("PUT", "/snapshot/load", load(files))), words);
      assert.deepEqual(await vmm.exit(), { code: 1, signal: null });
    });
  }
  const wrong: [string, Record<string, unknown>, RegExp][] = [
    ["pages of the pool, which a file cannot be mapped into", { huge_pages: "2M" }, /hugetlbfs/],
    [
      "an interface that the guest has not",
      { network_overrides: [{ iface_id: "eth9", host_dev_name: "tap0" }] },
      /Unknown Network Device/,
    ],
    ["a vsock that the guest has not", { vsock_override: { uds_path: "/v.sock" } }, /Unknown Vsock Device/],
  ];
  for (const [name, more, words] of wrong) {
    test(name, async () => {
      using dir = new WorkDir();
      const { state, memory } = await takeSnapshot(dir);
      await using vmm = await Vmm.start({ dir, socketName: "load" });
      assert.match(
        expectFault(await vmm.call("PUT", "/snapshot/load", load({ state, memory }, more))),
        words,
      );
      assert.deepEqual(await vmm.exit(), { code: 1, signal: null });
    });
  }
});

describe("a guest with devices", () => {
  /** A snapshot of a guest with a disk, an interface and metadata; its source is gone. */
  async function takeWithDevices(dir: WorkDir): Promise<Files> {
    using netns = new NetworkNamespace();
    netns.addTap("tap0");
    writeFileSync(dir.file("disk"), Buffer.alloc(1 << 20));
    await using source = await Vmm.start({ dir, socketName: "source", netns: netns.path });
    const disk = { drive_id: "rootfs", path_on_host: dir.file("disk"), is_root_device: true };
    const rate_limiter = { bandwidth: { size: 1_000_000, refill_time: 100 } };
    expectDone(
      await source.call("PUT", "/drives/rootfs", { ...disk, cache_type: "Writeback", rate_limiter }),
    );
    const eth0 = { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "06:00:ac:10:00:02" };
    expectDone(await source.call("PUT", "/network-interfaces/eth0", eth0));
    expectDone(await source.call("PUT", "/mmds/config", { version: "V2", network_interfaces: ["eth0"] }));
    expectDone(await source.call("PUT", "/mmds", { id: "source" }));
    expectDone(await source.call("PUT", "/entropy", {}));
    await source.configureTinyGuest("count");
    expectDone(await source.call("PUT", "/actions", { action_type: "InstanceStart" }));
    await source.console.waitForTick(2);
    await pause(source);
    const files = filesIn(dir);
    expectDone(await source.call("PUT", "/snapshot/create", create(files)));
    return files;
  }

  test("two copies at once, each with a tap of the same name in its own namespace", async () => {
    using dir = new WorkDir();
    const files = await takeWithDevices(dir);
    await using all = new AsyncDisposableStack();
    for (const name of ["one", "two"]) {
      const netns = all.use(new NetworkNamespace());
      netns.addTap("tap0");
      const vmm = all.use(await Vmm.start({ dir, socketName: name, netns: netns.path }));
      expectDone(await vmm.call("PUT", "/serial", { serial_out_path: vmm.consolePath }));
      expectDone(await vmm.call("PUT", "/mmds", { id: name }));
      expectDone(await vmm.call("PUT", "/snapshot/load", load(files)));
      assert.match(netns.ip("link", "show", "dev", "tap0"), /LOWER_UP/);
      // The config of the metadata comes back with the guest, its data is what was given before.
      assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), { id: name });
      expectDone(await vmm.call("PATCH", "/mmds", { more: true }));
      assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), { id: name, more: true });
      const config = expectBody(await vmm.call("GET", "/vm/config"));
      const mmds = config["mmds-config"] as Record<string, unknown>;
      assert.deepEqual([mmds["version"], mmds["network_interfaces"]], ["V2", ["eth0"]]);
      const [disk] = config["drives"] as Record<string, unknown>[];
      assert.equal(disk?.["path_on_host"], dir.file("disk"));
      assert.equal(disk?.["cache_type"], "Writeback");
      assert.deepEqual((disk?.["rate_limiter"] as Record<string, object>)["bandwidth"], {
        size: 1_000_000,
        one_time_burst: null,
        refill_time: 100,
      });
      await vmm.console.waitForText("tick ");
    }
  });

  test("an override gives it a tap of another name", async () => {
    using dir = new WorkDir();
    using netns = new NetworkNamespace();
    const files = await takeWithDevices(dir);
    netns.addTap("tap9");
    await using vmm = await Vmm.start({ dir, socketName: "copy", netns: netns.path });
    const network_overrides = [{ iface_id: "eth0", host_dev_name: "tap9" }];
    expectDone(await vmm.call("PUT", "/snapshot/load", load(files, { network_overrides })));
    assert.match(netns.ip("link", "show", "dev", "tap9"), /LOWER_UP/);
    const [nic] = expectBody(await vmm.call("GET", "/vm/config"))["network-interfaces"] as Record<
      string,
      unknown
    >[];
    assert.equal(nic?.["host_dev_name"], "tap9");
  });

  test("without metadata of its own it has none, and takes some later", async () => {
    using dir = new WorkDir();
    using netns = new NetworkNamespace();
    const files = await takeWithDevices(dir);
    netns.addTap("tap0");
    await using vmm = await Vmm.start({ dir, socketName: "copy", netns: netns.path });
    expectDone(await vmm.call("PUT", "/snapshot/load", load(files)));
    assert.deepEqual(expectBody(await vmm.call("GET", "/mmds")), {});
    expectFault(await vmm.call("PATCH", "/mmds", { a: 1 }));
    expectDone(await vmm.call("PUT", "/mmds", { a: 1 }));
    expectFault(await vmm.call("PUT", "/mmds/config", { version: "V2", network_interfaces: ["eth0"] }));
  });

  test("its metadata's config, given before, ends the chance of the load", async () => {
    using dir = new WorkDir();
    const { state, memory } = await takeSnapshot(dir);
    await using vmm = await Vmm.start({ dir, socketName: "copy" });
    expectFault(await vmm.call("PUT", "/mmds/config", { version: "V2", network_interfaces: ["eth0"] }));
    expectFault(await vmm.call("PUT", "/snapshot/load", load({ state, memory })));
    assert.equal(await vmm.state(), "Not started");
  });

  test("its disk's file gone, the load fails", async () => {
    using dir = new WorkDir();
    using netns = new NetworkNamespace();
    const files = await takeWithDevices(dir);
    netns.addTap("tap0");
    unlinkSync(dir.file("disk"));
    await using vmm = await Vmm.start({ dir, socketName: "copy", netns: netns.path });
    assert.match(expectFault(await vmm.call("PUT", "/snapshot/load", load(files))), /No such file/);
    assert.deepEqual(await vmm.exit(), { code: 1, signal: null });
  });

  test("its disk is told to have grown, running, paused and after a snapshot", async () => {
    using dir = new WorkDir();
    using netns = new NetworkNamespace();
    const files = await takeWithDevices(dir);
    netns.addTap("tap0");
    await using vmm = await Vmm.start({ dir, socketName: "copy", netns: netns.path });
    expectDone(await vmm.call("PUT", "/serial", { serial_out_path: vmm.consolePath }));
    expectDone(await vmm.call("PUT", "/snapshot/load", load(files)));
    const grow = async (mib: number): Promise<void> => {
      truncateSync(dir.file("disk"), mib << 20);
      const body = { drive_id: "rootfs", path_on_host: dir.file("disk") };
      expectDone(await vmm.call("PATCH", "/drives/rootfs", body));
    };
    await grow(2);
    await pause(vmm);
    await grow(3);
    expectDone(await vmm.call("PUT", "/snapshot/create", create(filesIn(dir, "again"))));
    await grow(4);
    await resume(vmm);
    await vmm.console.waitForTick(vmm.console.lastTick() + 2);
  });
});
