import assert from "node:assert/strict";
import { truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { create, filesIn, type Files, load, pause, resume, takeSnapshot } from "./support/snapshot.ts";
import { Vmm } from "./support/vmm.ts";
import { WorkDir } from "./support/workdir.ts";

/** A snapshot of a guest with a disk, an interface and metadata; its source is gone. */
async function takeWithDevices(dir: WorkDir, args: readonly string[] = []): Promise<Files> {
  using netns = new NetworkNamespace();
  netns.addTap("tap0");
  writeFileSync(dir.file("disk"), Buffer.alloc(1 << 20));
  await using source = await Vmm.start({ dir, socketName: "source", netns: netns.path, args });
  const disk = { drive_id: "rootfs", path_on_host: dir.file("disk"), is_root_device: true };
  const rate_limiter = { bandwidth: { size: 1_000_000, refill_time: 100 } };
  expectDone(await source.call("PUT", "/drives/rootfs", { ...disk, cache_type: "Writeback", rate_limiter }));
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

test("two copies of a guest with devices at once, each with a tap of the same name in its own namespace", async () => {
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
    assert.deepEqual(disk?.["rate_limiter"], {
      bandwidth: { size: 1_000_000, one_time_burst: null, refill_time: 100 },
      ops: null,
    });
    await vmm.console.waitForText("tick ");
  }
});

test("a guest with a PCI bus is loaded with its devices by a VMM of its kind", async () => {
  using dir = new WorkDir();
  using netns = new NetworkNamespace();
  const args = ["--enable-pci"];
  const files = await takeWithDevices(dir, args);
  netns.addTap("tap0");
  await using vmm = await Vmm.start({ dir, socketName: "copy", netns: netns.path, args });
  expectDone(await vmm.call("PUT", "/serial", { serial_out_path: vmm.consolePath }));
  expectDone(await vmm.call("PUT", "/snapshot/load", load(files)));
  assert.match(netns.ip("link", "show", "dev", "tap0"), /LOWER_UP/);
  await vmm.console.waitForText("tick ");
});

test("an override gives a loaded guest a tap of another name", async () => {
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

test("a guest that is loaded without metadata has none, and takes some later", async () => {
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

test("the config of metadata, given before, ends the chance of the load", async () => {
  using dir = new WorkDir();
  const { state, memory } = await takeSnapshot(dir);
  await using vmm = await Vmm.start({ dir, socketName: "copy" });
  expectFault(await vmm.call("PUT", "/mmds/config", { version: "V2", network_interfaces: ["eth0"] }));
  expectFault(await vmm.call("PUT", "/snapshot/load", load({ state, memory })));
  assert.equal(await vmm.state(), "Not started");
});

test("a load of a guest whose disk is gone fails", async () => {
  using dir = new WorkDir();
  using netns = new NetworkNamespace();
  const files = await takeWithDevices(dir);
  netns.addTap("tap0");
  unlinkSync(dir.file("disk"));
  await using vmm = await Vmm.start({ dir, socketName: "copy", netns: netns.path });
  assert.match(expectFault(await vmm.call("PUT", "/snapshot/load", load(files))), /No such file/);
  assert.deepEqual(await vmm.exit(), { code: 1, signal: null });
});

test("a loaded VMM is told that its disk has grown, running, paused and after a snapshot", async () => {
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
