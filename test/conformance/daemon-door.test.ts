import assert from "node:assert/strict";
import {
  chownSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "../../src/system/log.ts";
import type { GuestHardware, LaunchSpec, Vmms } from "../../src/vmm/types.ts";
import { createVmms } from "../../src/vmm/vmms.ts";
import { vmmsContract, type VmmsUnderTest } from "../support/contracts/vmms.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { pair } from "./support/pair.ts";
import { Console, tinyGuest } from "./support/tiny-guest.ts";
import { WorkDir } from "./support/workdir.ts";

const UID = 200_321;
const MIB = 1024 * 1024;

const HARDWARE: GuestHardware = {
  vcpus: 1,
  memory_mib: 64,
  kernel_path: "/kernel",
  initrd_path: "/initrd",
  boot_args: "console=ttyS0 tiny=count",
  disk_path: "/disk",
  seed_path: "/seed",
  console_path: "/console",
  tap_device: "tap0",
  guest_mac: "06:00:ac:10:00:02",
  io_engine: "Sync",
};

/** The daemon's vmm room on the pair under test, each VMM in a network namespace of its own. */
async function roomOnPair(): Promise<
  VmmsUnderTest & { readonly dir: WorkDir; console(spec: LaunchSpec): Console }
> {
  const undo = new AsyncDisposableStack();
  const dir = undo.use(new WorkDir());
  const restart = async (): Promise<Vmms> => {
    const vmms = createVmms({
      rootDir: dir.path,
      tag: "c0ffee",
      firecrackerPath: pair.firecracker,
      jailerPath: pair.jailer,
      fallback: { firecrackerPath: "/none", jailerPath: "/none", label: "none", reason: "never taken" },
      searchPath: [],
      cgroupParent: `door-${dir.path.slice(-6)}`,
      log: silentLog,
    });
    await vmms.open();
    return vmms;
  };
  const vmms = await restart();
  const specs: LaunchSpec[] = [];
  undo.defer(async () => {
    for (const spec of specs) await vmms.release(spec);
  });
  const file = (name: string, owner: number, bytes: number): string => {
    const path = dir.file(name);
    writeFileSync(path, "", { mode: owner === 0 ? 0o444 : 0o600 });
    truncateSync(path, bytes);
    chownSync(path, owner, owner);
    return path;
  };
  const spec = async (): Promise<LaunchSpec> => {
    const netns = undo.use(new NetworkNamespace());
    netns.addTap("tap0", UID);
    const jail_id = vmms.newJailId();
    const kernel = dir.file(`${jail_id}-kernel`);
    copyFileSync(tinyGuest(), kernel);
    const made: LaunchSpec = {
      jail_id,
      uid: UID,
      gid: UID,
      netns_path: netns.path,
      files: [
        { source: kernel, path: "/kernel" },
        { source: file(`${jail_id}-initrd`, 0, 4096), path: "/initrd" },
        { source: file(`${jail_id}-disk`, UID, MIB), path: "/disk" },
        { source: file(`${jail_id}-seed`, 0, 65_536), path: "/seed" },
        { source: file(`${jail_id}-console`, UID, 0), path: "/console" },
        { source: file(`${jail_id}-log`, UID, 0), path: "/vmm.log" },
      ],
      log_path: "/vmm.log",
      limits: { fsize_bytes: 256 * MIB, no_file: 4096 },
      cgroup: { memory_bytes: 320 * MIB, cpus: 1, pids: 128 },
    };
    specs.push(made);
    return await Promise.resolve(made);
  };
  return {
    dir,
    vmms,
    hardware: HARDWARE,
    guestListens: false,
    waitMs: 20_000,
    spec,
    restart,
    console: ({ jail_id }) => new Console(dir.file(`${jail_id}-console`)),
    die: ({ ref }) => process.kill(ref.process.pid, "SIGKILL"),
    [Symbol.asyncDispose]: async () => await undo.disposeAsync(),
  };
}

vmmsContract("the daemon's vmm room", roomOnPair);

test("the daemon's vmm room: a guest runs, stands still while it is paused, and its console is a file", async () => {
  await using room = await roomOnPair();
  const spec = await room.spec();
  const vmm = await room.vmms.launch(spec);
  await vmm.boot(room.hardware);
  const console = room.console(spec);
  await console.waitForTick(2);
  await vmm.pause();
  const paused = console.lastTick();
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(console.lastTick(), paused);
  await vmm.resume();
  await console.waitForTick(paused + 1);
  await room.vmms.release(vmm.ref);
  assert.equal(await vmm.waitGone(0), true);
  assert.deepEqual(readdirSync(room.dir.file("trash")), []);
});

test("the daemon's vmm room: a bad kernel is refused in the VMM's words, and nothing is left", async () => {
  await using room = await roomOnPair();
  const vmm = await room.vmms.launch(await room.spec());
  await assert.rejects(vmm.boot({ ...room.hardware, kernel_path: "/missing" }), {
    code: "vmm_failed",
    message: /^The VMM refused PUT \/boot-source: .*kernel file cannot be opened/,
  });
  await room.vmms.release(vmm.ref);
  assert.deepEqual(await room.vmms.listJails(), []);
});

test("the daemon's vmm room: a namespace that is not there fails the launch in the jailer's words", async () => {
  await using room = await roomOnPair();
  const spec = { ...(await room.spec()), netns_path: "/run/netns/not-there" };
  await assert.rejects(room.vmms.launch(spec), {
    code: "vmm_failed",
    message: /^The jailer failed: .*\/run\/netns\/not-there/,
  });
  assert.deepEqual(await room.vmms.listJails(), []);
  assert.equal(existsSync(join(room.dir.path, "jails", pair.execName, spec.jail_id)), false);
});

test("the daemon's vmm room: a guest that resets ends its VMM, which is told, and its log says that it ended well", async () => {
  await using room = await roomOnPair();
  const spec = await room.spec();
  const vmm = await room.vmms.launch(spec);
  await vmm.boot({ ...room.hardware, boot_args: "console=ttyS0 tiny=reset" });
  assert.equal(await vmm.waitGone(20_000), true);
  assert.equal(vmm.gone.aborted, true);
  // The daemon is not the VMM's parent: this line is how it learns.
  assert.match(readFileSync(room.dir.file(`${spec.jail_id}-log`), "utf8"), /exiting successfully/);
  await room.vmms.release(vmm.ref);
});
