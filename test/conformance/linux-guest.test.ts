import assert from "node:assert/strict";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { expectDone } from "./support/api.ts";
import { bootLinux, linuxCannotBoot } from "./support/linux-guest.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { Vmm } from "./support/vmm.ts";
import { WorkDir } from "./support/workdir.ts";

const CTRL_ALT_DEL = { action_type: "SendCtrlAltDel" };

function disk(path: string, content: string, bytes: number): string {
  writeFileSync(path, content);
  truncateSync(path, bytes);
  return path;
}

async function addDisks(vmm: Vmm): Promise<void> {
  const root = {
    drive_id: "root",
    path_on_host: disk(vmm.dir.file("root"), "first", 2 << 20),
    is_root_device: true,
    cache_type: "Writeback",
  };
  const seed = {
    drive_id: "seed",
    path_on_host: disk(vmm.dir.file("seed"), "seed!", 1 << 20),
    is_root_device: false,
    is_read_only: true,
  };
  expectDone(await vmm.call("PUT", "/drives/seed", seed));
  expectDone(await vmm.call("PUT", "/drives/root", root));
}

// On each test, not on the group: a skipped group counts as no test at all.
const options = { skip: await linuxCannotBoot() };

describe("a Linux guest", () => {
  test("sees the machine that was asked for, and ends on Ctrl-Alt-Del with 0", options, async () => {
    using netns = new NetworkNamespace();
    netns.addTap("tap0");
    await using vmm = await bootLinux({ netns: netns.path }, async (machine) => {
      await addDisks(machine);
      const eth0 = { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "06:00:ac:10:00:02", mtu: 1_400 };
      expectDone(await machine.call("PUT", "/network-interfaces/eth0", eth0));
      expectDone(await machine.call("PUT", "/entropy", {}));
      expectDone(await machine.call("PUT", "/machine-config", { vcpu_count: 2, mem_size_mib: 256 }));
    });
    const fact = (name: string) => vmm.console.fact(name).trim();
    assert.equal(fact("cpus"), "2");
    // Sectors of 512 bytes, whether it is read-only, and its first bytes.
    assert.equal(fact("vda"), "4096 0 first");
    assert.equal(fact("vdb"), "2048 1 seed!");
    assert.equal(fact("vda_write"), "done");
    assert.equal(fact("vdb_write"), "refused");
    assert.equal(fact("eth0"), "06:00:ac:10:00:02 1400");
    assert.equal(fact("entropy"), "16");
    // The guest has synced what it wrote.
    assert.equal(readFileSync(vmm.dir.file("root"), "utf8").slice(0, 5), "wrote");
    assert.equal(readFileSync(vmm.dir.file("seed"), "utf8").slice(0, 5), "seed!");
    expectDone(await vmm.call("PUT", "/actions", CTRL_ALT_DEL));
    assert.deepEqual(await vmm.exit(20_000), { code: 0, signal: null });
    assert.match(vmm.console.text(), /ctrl-alt-del/);
  });

  test("goes on in another VMM from a snapshot, with its disks and its tap", options, async () => {
    using dir = new WorkDir();
    using netns = new NetworkNamespace();
    netns.addTap("tap0");
    const files = { snapshot_path: dir.file("state"), mem_file_path: dir.file("memory") };
    let tick: number;
    {
      await using source = await bootLinux(
        { dir, netns: netns.path, socketName: "source" },
        async (machine) => {
          await addDisks(machine);
          const eth0 = { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "06:00:ac:10:00:02" };
          expectDone(await machine.call("PUT", "/network-interfaces/eth0", eth0));
        },
      );
      expectDone(await source.call("PATCH", "/vm", { state: "Paused" }));
      expectDone(await source.call("PUT", "/snapshot/create", files));
      tick = Number([...source.console.text().matchAll(/tick (\d+)\r?\n/g)].at(-1)?.[1] ?? 0);
    }
    await using copy = await Vmm.start({ dir, netns: netns.path, socketName: "copy" });
    expectDone(await copy.call("PUT", "/serial", { serial_out_path: copy.consolePath }));
    const mem_backend = { backend_type: "File", backend_path: files.mem_file_path };
    const load = { snapshot_path: files.snapshot_path, mem_backend, resume_vm: true };
    expectDone(await copy.call("PUT", "/snapshot/load", load));
    await copy.console.waitForText(`tick ${tick + 3}`);
    assert.doesNotMatch(copy.console.text(), /linux-guest up/);
    expectDone(await copy.call("PUT", "/actions", CTRL_ALT_DEL));
    assert.deepEqual(await copy.exit(20_000), { code: 0, signal: null });
  });

  test("boots from a bzImage too", options, async () => {
    await using vmm = await bootLinux({}, async (machine) => {
      const source = JSON.parse((await machine.call("GET", "/vm/config")).text) as Record<string, object>;
      const given = source["boot-source"] as Record<string, string>;
      const kernel_image_path = String(given["kernel_image_path"]).replace(/vmlinux$/, "vmlinuz");
      expectDone(await machine.call("PUT", "/boot-source", { ...given, kernel_image_path }));
    });
    assert.equal(vmm.console.fact("cpus").trim(), "1");
  });
});
