import assert from "node:assert/strict";
import { chmodSync, chownSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { call, expectBody, expectDone } from "./support/api.ts";
import { Jail } from "./support/jail.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { isAlive } from "./support/processes.ts";
import { Console, tinyGuest } from "./support/tiny-guest.ts";
import { waitFor } from "./support/wait.ts";

/** As a store's masters are: root's, readable by all and writable by nobody. */
function stageMaster(jail: Jail, file: string, name: string): string {
  const path = jail.stage(file, name);
  chownSync(jail.inside(path), 0, 0);
  chmodSync(jail.inside(path), 0o444);
  return path;
}

/** An empty file of the jail's uid. */
function stageEmpty(jail: Jail, name: string, bytes = 0): string {
  const file = jail.base.file("empty");
  writeFileSync(file, "");
  truncateSync(file, bytes);
  return jail.stage(file, name);
}

/** Everything together, with the flags and in the order that the daemon uses. */
for (const io_engine of ["Sync", "Async"] as const) {
  test(`a whole machine in a jail, with ${io_engine} disks`, async () => {
    using netns = new NetworkNamespace();
    await using jail = new Jail();
    netns.addTap("tap0", jail.uid);
    const kernel_image_path = stageMaster(jail, tinyGuest(), "kernel");
    const initrd_path = stageMaster(jail, tinyGuest(), "initrd");
    const disk = stageEmpty(jail, "disk", 8 << 20);
    const seed = stageMaster(jail, "/etc/hostname", "seed");
    const console_path = stageEmpty(jail, "console");
    const log = stageEmpty(jail, "log");
    const limits = ["--resource-limit", "fsize=1073741824", "--resource-limit", "no-file=1024"];
    const exit = await jail.run({
      args: ["--netns", netns.path, ...limits, "--daemonize", "--new-pid-ns"],
      vmmArgs: ["--api-sock", "/run/api.sock", "--log-path", log, "--level", "Info"],
    });
    assert.equal(exit.code, 0, jail.output);
    const socket = jail.inside("/run/api.sock");
    await waitFor("the API", () => call(socket, "GET", "/").catch(() => undefined));
    const { pid } = jail;
    const eth0 = { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "06:00:ac:10:00:02" };
    const root = { drive_id: "rootfs", path_on_host: disk, is_root_device: true, is_read_only: false };
    for (const [path, body] of [
      ["/serial", { serial_out_path: console_path, rate_limiter: { size: 65_536, refill_time: 1_000 } }],
      ["/machine-config", { vcpu_count: 2, mem_size_mib: 160 }],
      ["/boot-source", { kernel_image_path, initrd_path, boot_args: "tiny=count" }],
      ["/drives/rootfs", { ...root, cache_type: "Writeback", io_engine }],
      [
        "/drives/seed",
        { drive_id: "seed", path_on_host: seed, is_root_device: false, is_read_only: true, io_engine },
      ],
      ["/network-interfaces/eth0", eth0],
      ["/entropy", {}],
      ["/actions", { action_type: "InstanceStart" }],
    ] as const) {
      expectDone(await call(socket, "PUT", path, body));
    }
    assert.equal(expectBody(await call(socket, "GET", "/"))["state"], "Running");
    const console = new Console(jail.inside(console_path));
    await console.waitForTick(3);
    assert.equal(console.fact("modules"), "1");
    assert.equal(statSync(jail.inside(log)).uid, jail.uid);
    expectDone(await call(socket, "PATCH", "/vm", { state: "Paused" }));
    expectDone(await call(socket, "PATCH", "/vm", { state: "Resumed" }));
    await console.waitForTick(console.lastTick() + 2);
    await jail.killVmm();
    assert.ok(!isAlive(pid));
  });
}
