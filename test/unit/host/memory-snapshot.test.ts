import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { Storage } from "../../../src/storage/types.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { FakeStorage } from "../../support/fakes/storage.ts";
import { FakeVmms } from "../../support/fakes/vmms.ts";
import { assertMatches, restarted } from "../../support/host-trouble.ts";

const one = machineId("one");
const full = new AppError("disk_full", "there is no room left");
const vmmFailed = new AppError("vmm_failed", "the VMM broke off");

const take = ({ host }: FakeHost, snapshot_id: string, memory?: boolean | "full" | "diff") =>
  host.snapshot(one, { snapshot_id, ...(memory === undefined ? {} : { memory }) }, host.trace());
const jailOf = ({ vmms, state }: FakeHost, id = one) =>
  vmms.jails.get(state.state.machines.get(id)?.vmm?.jail_id ?? "");
const hasBase = ({ state }: FakeHost) => state.state.machines.get(one)?.has_memory_base === true;

/** A host with one running machine that tracks its dirty pages. */
async function withTracking(options: Parameters<typeof makeFakeHost>[0] = {}): Promise<FakeHost> {
  const fakes = await makeFakeHost(options);
  await fakes.host.create({ machine_id: "one", track_dirty_pages: true }, fakes.trace());
  return fakes;
}

/** Notes at each call what the guest was doing and how often it had been saved. */
class WatchedStorage extends FakeStorage {
  readonly seen: string[] = [];
  readonly #vmms: FakeVmms;

  constructor(vmms: FakeVmms) {
    super();
    this.#vmms = vmms;
  }

  protected override async enter(call: keyof Storage, ...ids: readonly string[]): Promise<void> {
    const [jail] = this.#vmms.jails.values();
    this.seen.push(`${call}: ${jail?.state}, saved ${jail?.saved.length}`);
    await super.enter(call, ...ids);
  }
}

test("memory is saved and the disk cloned while the guest stands still, and sealed once it goes on", async () => {
  const vmms = new FakeVmms();
  const storage = new WatchedStorage(vmms);
  await using fakes = await withTracking({ rooms: { vmms, storage } });
  storage.seen.length = 0;
  const snapshot = await take(fakes, "m", true);
  assert.deepEqual(storage.seen, [
    "stageMemory: running, saved 0",
    "stageSnapshot: paused, saved 1",
    "finishSnapshot: running, saved 1",
    "keepMemoryBase: running, saved 1",
  ]);
  assert.deepEqual([snapshot.memory, snapshot.consistency], ["full", "synced"]);
  assert.deepEqual(jailOf(fakes)?.saved, [
    { kind: "full", state: "/fake/staging/m/vmstate.bin", memory: "/fake/staging/m/memory.img" },
  ]);
});

test("a paused machine is saved as it stands, and goes on standing", async () => {
  await using fakes = await withTracking();
  await fakes.host.pause(one, fakes.trace());
  const snapshot = await take(fakes, "m", "full");
  // It could not write out, and nobody had to wait for it.
  assert.deepEqual([snapshot.consistency, snapshot.paused_ms], ["crash", 0]);
  assert.deepEqual([jailOf(fakes)?.state, fakes.host.getMachine(one).paused], ["paused", true]);
  await assertMatches(fakes, "after a snapshot of a paused machine");
});

test("the manifest says what a restore is judged by, and by which key the frozen guest lets the daemon in", async () => {
  await using fakes = await withTracking();
  await take(fakes, "m", true);
  await take(fakes, "d");
  const frozen = await fakes.storage.readManifest(snapshotId("m"));
  const { guest_machine_id, guest_ssh_host_public_key } = fakes.host.getMachine(one);
  assert.deepEqual(frozen.guest, {
    hostname: "one",
    guest_machine_id,
    ssh_host_public_key: guest_ssh_host_public_key,
    login_key: fakes.guests.loginKey(guest_machine_id),
  });
  assert.deepEqual(frozen.vmm, { name: "fake", version: "1.17.0", snapshot_format: "11.0.0" });
  assert.equal(frozen.hardware.track_dirty_pages, true);
  assert.ok(frozen.host.cpu_flags.length > 0);
  const disk = await fakes.storage.readManifest(snapshotId("d"));
  assert.deepEqual([disk.memory_kind, disk.guest, disk.vmm.snapshot_format], ["none", undefined, undefined]);
});

test("only a running machine has memory to keep, and nothing is touched otherwise", async () => {
  await using fakes = await withTracking();
  await fakes.host.stop(one, fakes.trace());
  const calls = fakes.storage.calls.length;
  for (const memory of [true, "full", "diff"] as const)
    await assert.rejects(take(fakes, "m", memory), { code: "wrong_phase" });
  assert.equal(fakes.storage.calls.length, calls);
  await assertMatches(fakes, "after refusals");
});

test("a diff needs a machine that tracks its pages and was saved before, and nothing is touched otherwise", async () => {
  await using untracked = await makeFakeHost();
  await untracked.host.create({ machine_id: "one" }, untracked.trace());
  await take(untracked, "m", true);
  await using fresh = await withTracking();
  for (const [fakes, why] of [
    [untracked, /track_dirty_pages/],
    [fresh, /take a full one/],
  ] as const) {
    const calls = fakes.storage.calls.length;
    await assert.rejects(take(fakes, "x", "diff"), { code: "no_memory_base", message: why });
    assert.equal(fakes.storage.calls.length, calls);
    assert.equal(jailOf(fakes)?.state, "running");
    await assertMatches(fakes, "after a refusal");
  }
  assert.equal(hasBase(untracked), false, "nothing is kept for a machine that can't have a diff");
});

test("each save is the base of the next diff; a disk snapshot changes nothing about that", async () => {
  await using fakes = await withTracking();
  await take(fakes, "m1", true);
  await take(fakes, "m2", "diff");
  await take(fakes, "d");
  await take(fakes, "m3", "diff");
  assert.deepEqual(
    jailOf(fakes)?.saved.map(({ kind }) => kind),
    ["full", "diff", "diff"],
  );
  assert.equal(fakes.storage.machines.get(one)?.memoryBase, "m3");
  await assertMatches(fakes, "after three");
});

for (const [what, fail] of Object.entries({
  "whose save fails": (fakes: FakeHost) => {
    fakes.vmms.fail.save = vmmFailed;
  },
  "whose disk can't be cloned": ({ storage }: FakeHost) => storage.failures.set("stageSnapshot", full),
  "that can't be sealed": ({ storage }: FakeHost) => storage.failures.set("finishSnapshot", full),
  "that can't be kept as a base": ({ storage }: FakeHost) => storage.failures.set("keepMemoryBase", full),
})) {
  for (const kind of ["full", "diff"] as const) {
    test(`a ${kind} snapshot ${what} leaves the source running and no base for a diff`, async () => {
      await using fakes = await withTracking();
      await take(fakes, "m1", true);
      fail(fakes);
      await assert.rejects(take(fakes, "m2", kind), AppError);
      fakes.storage.failures.clear();
      fakes.vmms.fail = {};
      assert.deepEqual([jailOf(fakes)?.state, hasBase(fakes)], ["running", false]);
      await assertMatches(fakes, what);
      await assert.rejects(take(fakes, "m2", "diff"), { code: "no_memory_base" });
      // A full one is always possible, and a base again.
      await take(fakes, "m2", "full");
      await take(fakes, "m3", "diff");
    });
  }
}

test("a full disk is found before the guest is paused, and keeps the base", async () => {
  await using fakes = await withTracking();
  await take(fakes, "m1", true);
  fakes.storage.free = 0;
  await assert.rejects(take(fakes, "m2", "diff"), { code: "disk_full" });
  assert.deepEqual([jailOf(fakes)?.state, hasBase(fakes)], ["running", true]);
  await assertMatches(fakes, "after a full disk");
});

test("a base that could not be dropped after a failed save is never stood on, not even after a start", async () => {
  const fakes = await withTracking();
  await take(fakes, "m1", true);
  // The VMM began a new account of what changed, and then everything that would say so fails, too.
  fakes.storage.failures.set("stageSnapshot", full);
  const commit = fakes.state.commit.bind(fakes.state);
  fakes.state.commit = async (...changes) => {
    if (fakes.storage.calls.at(-1)?.startsWith("stageSnapshot") === true) throw full;
    await commit(...changes);
  };
  await assert.rejects(take(fakes, "m2", "diff"), { code: "disk_full" });
  fakes.state.commit = commit;
  fakes.storage.failures.clear();
  await assert.rejects(take(fakes, "m3", "diff"), { code: "no_memory_base" });
  await fakes.host.close();
  await using second = await restarted(fakes, undefined);
  await assertMatches(second, "after a start");
  await assert.rejects(take(second, "m3", "diff"), { code: "no_memory_base" });
});

test("what a stop or the VMM's death ends has no base for a diff when it starts again", async () => {
  await using fakes = await withTracking();
  await take(fakes, "m1", true);
  await fakes.host.stop(one, fakes.trace());
  await assertMatches(fakes, "stopped");
  await fakes.host.start(one, fakes.trace());
  await assert.rejects(take(fakes, "x", "diff"), { code: "no_memory_base" });
  await take(fakes, "m2", true);
  jailOf(fakes)?.die();
  for (let turn = 0; turn < 1000 && fakes.host.getMachine(one).phase === "running"; turn += 1)
    await new Promise(setImmediate);
  await assertMatches(fakes, "dead");
  await fakes.host.start(one, fakes.trace());
  await assert.rejects(take(fakes, "x", "diff"), { code: "no_memory_base" });
});

test("a VMM that dies in its save fails the snapshot, and nothing of it is left", async () => {
  await using fakes = await withTracking();
  const held = Promise.withResolvers<void>();
  fakes.vmms.hold.save = held.promise;
  const taking = take(fakes, "m", true);
  for (let turn = 0; turn < 1000 && jailOf(fakes)?.state !== "paused"; turn += 1)
    await new Promise(setImmediate);
  jailOf(fakes)?.die();
  held.resolve();
  await assert.rejects(taking, { code: "vmm_failed" });
  for (let turn = 0; turn < 1000 && fakes.host.getMachine(one).phase === "running"; turn += 1)
    await new Promise(setImmediate);
  assert.equal(fakes.host.getMachine(one).phase, "failed");
  await assertMatches(fakes, "after the death");
});

test("a VMM whose death is noticed only after its save failed leaves no intent behind", async () => {
  await using fakes = await withTracking();
  fakes.vmms.fail = { save: vmmFailed, resume: vmmFailed };
  const jail = jailOf(fakes);
  setTimeout(() => jail?.die(), 30);
  await assert.rejects(take(fakes, "m", true), { code: "vmm_failed" });
  for (let turn = 0; turn < 1000 && fakes.host.getMachine(one).phase === "running"; turn += 1)
    await new Promise(setImmediate);
  await assertMatches(fakes, "after the death");
});

test("memory in huge pages is not kept: nothing could wake it", async () => {
  await using fakes = await withTracking();
  const record = fakes.state.state.machines.get(one);
  assert.ok(record?.hardware !== undefined);
  await fakes.state.commit({
    put: "machine",
    record: { ...record, hardware: { ...record.hardware, huge_pages: "2M" } },
  });
  const calls = fakes.storage.calls.length;
  await assert.rejects(take(fakes, "m", true), { code: "not_supported", message: /huge pages/ });
  assert.equal(fakes.storage.calls.length, calls);
  await take(fakes, "d");
});

test("a machine from before there were login keys is not saved with its memory, as nobody could reach what wakes", async () => {
  await using fakes = await withTracking();
  const record = fakes.state.state.machines.get(one);
  assert.ok(record !== undefined);
  const { own_login_key: _key, ...identity } = record.identity;
  await fakes.state.commit({ put: "machine", record: { ...record, identity } });
  await assert.rejects(take(fakes, "m", true), { code: "not_supported" });
  await take(fakes, "d");
});
