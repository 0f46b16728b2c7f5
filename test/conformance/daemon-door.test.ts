import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import type { LaunchSpec, SaveTarget, Vmm } from "../../src/vmm/types.ts";
import { vmmsContract } from "../support/contracts/vmms.ts";
import { call, expectBody, expectDone } from "./support/api.ts";
import { type DaemonRoom, HARDWARE, MIB, roomOnPair } from "./support/daemon-room.ts";
import { join } from "node:path";
import { pair } from "./support/pair.ts";

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

/** A guest that had counted to at least 3 and stands still. */
async function pausedGuest(room: DaemonRoom): Promise<{ vmm: Vmm; spec: LaunchSpec; tick: number }> {
  const spec = await room.spec();
  const vmm = await room.vmms.launch(spec);
  await vmm.boot(HARDWARE);
  const console = room.console(spec);
  await console.waitForTick(3);
  await vmm.pause();
  return { vmm, spec, tick: console.lastTick() };
}

function socketOf(room: DaemonRoom, spec: LaunchSpec): string {
  return join(room.jail(spec), "run", "api.sock");
}

/** The guest that was saved, going on in a jail of its own. */
async function wokenGuest(room: DaemonRoom, saved: SaveTarget): Promise<{ vmm: Vmm; spec: LaunchSpec }> {
  const { spec, frozen } = await room.thaw(saved);
  const vmm = await room.vmms.launch(spec);
  await vmm.load(frozen);
  await vmm.resume();
  return { vmm, spec };
}

test("the daemon's vmm room: a saved guest goes on in two other jails, and from a diff where one of them was", async () => {
  await using room = await roomOnPair();
  const source = await pausedGuest(room);
  const full = await room.target();
  await source.vmm.save(full, HARDWARE.memory_mib);
  assert.ok(statSync(full.memory).size >= HARDWARE.memory_mib * MIB);
  for (const name of readdirSync(room.jail(source.spec))) assert.doesNotMatch(name, /^save-/);
  const one = await wokenGuest(room, full);
  const two = await wokenGuest(room, full);
  for (const { spec } of [one, two]) {
    await room.console(spec).waitForTick(source.tick + 5);
    assert.doesNotMatch(room.console(spec).text(), /tiny-guest up/);
  }
  await one.vmm.pause();
  const tick = room.console(one.spec).lastTick();
  const diff = await room.target(full);
  await one.vmm.save(diff, HARDWARE.memory_mib);
  const again = await wokenGuest(room, diff);
  await room.console(again.spec).waitForTick(tick + 2);
  const first = Number(/tick (\d+)\n/.exec(room.console(again.spec).text())?.[1]);
  assert.ok(first <= tick + 2, `went on at ${first}, was at ${tick}`);
  await source.vmm.resume();
  await room.console(source.spec).waitForTick(source.tick + 2);
});

test("the daemon's vmm room: a woken guest is served the metadata it was given anew", async () => {
  await using room = await roomOnPair();
  const source = await pausedGuest(room);
  const full = await room.target();
  await source.vmm.save(full, HARDWARE.memory_mib);
  const { spec, frozen } = await room.thaw(full);
  const vmm = await room.vmms.launch(spec);
  const metadata = { latest: { "meta-data": { "instance-id": "another" } } };
  await vmm.load({ ...frozen, metadata });
  const served = async (of: LaunchSpec): Promise<unknown> =>
    expectBody(await call(socketOf(room, of), "GET", "/mmds"));
  assert.deepEqual(await served(spec), metadata);
  assert.deepEqual(await served(source.spec), HARDWARE.metadata);
});

test("the daemon's vmm room: a load of a damaged state fails in the VMM's words, with its log, and ends it", async () => {
  await using room = await roomOnPair();
  const source = await pausedGuest(room);
  const full = await room.target();
  await source.vmm.save(full, HARDWARE.memory_mib);
  writeFileSync(full.state, "nonsense".repeat(1000));
  const { spec, frozen } = await room.thaw(full);
  const vmm = await room.vmms.launch(spec);
  await assert.rejects(vmm.load(frozen), (error: Error & { details?: Record<string, unknown> }) => {
    assert.match(error.message, /^The VMM refused PUT \/snapshot\/load: Load snapshot error: /);
    assert.match(String(error.details?.["vmm_log"]), /\/snapshot\/load/);
    return "code" in error && error.code === "vmm_failed";
  });
  assert.equal(await vmm.waitGone(20_000), true);
});

test("the daemon's vmm room: a save onto a full disk says so, and the guest goes on", async () => {
  await using room = await roomOnPair({ diskMib: 128 });
  const { vmm, spec, tick } = await pausedGuest(room);
  // A connection that is open keeps the filesystem busy.
  await using undo = new AsyncDisposableStack();
  undo.defer(async () => await vmm.kill());
  const target = await room.target();
  const filler = room.dir.file("filler");
  const { bavail, bsize } = statfsSync(room.dir.path);
  writeFileSync(filler, Buffer.alloc(bavail * bsize - 64 * 1024));
  await assert.rejects(vmm.save(target, HARDWARE.memory_mib), { code: "disk_full" });
  for (const name of readdirSync(room.jail(spec))) assert.doesNotMatch(name, /^save-/);
  rmSync(filler);
  await vmm.save(target, HARDWARE.memory_mib);
  await vmm.resume();
  await room.console(spec).waitForTick(tick + 2);
});

test("the daemon's vmm room: a guest on a PCI bus is saved and woken too", async () => {
  await using room = await roomOnPair();
  const spec = { ...(await room.spec()), pci: true };
  const vmm = await room.vmms.launch(spec);
  await vmm.boot({ ...HARDWARE, options: { ...HARDWARE.options, pci: true } });
  const console = room.console(spec);
  await console.waitForTick(2);
  await vmm.pause();
  const full = await room.target();
  await vmm.save(full, HARDWARE.memory_mib);
  const { spec: other, frozen } = await room.thaw(full);
  const woken = await room.vmms.launch({ ...other, pci: true });
  await woken.load(frozen);
  await woken.resume();
  await room.console(other).waitForTick(console.lastTick() + 2);
});

test("the daemon's vmm room: the VMM's metrics go to the file that was made for them", async () => {
  await using room = await roomOnPair();
  const spec = await room.spec();
  const vmm = await room.vmms.launch(spec);
  await vmm.boot(HARDWARE);
  expectDone(await call(socketOf(room, spec), "PUT", "/actions", { action_type: "FlushMetrics" }));
  const metrics = readFileSync(room.dir.file(`${spec.jail_id}-metrics`), "utf8");
  assert.ok(JSON.parse(metrics.trim().split("\n")[0] ?? ""));
});
