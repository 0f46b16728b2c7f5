import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { RECEIPT_ITEMS } from "../../../src/contract/machine.ts";
import type { RestoreSnapshot } from "../../../src/contract/snapshot.ts";
import type { GuestAddress, NewSeed } from "../../../src/guest/types.ts";
import type { Manifest } from "../../../src/model/manifest.ts";
import type { Slot } from "../../../src/network/types.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { FakeGuests } from "../../support/fakes/guests.ts";
import { FakeNetwork } from "../../support/fakes/network.ts";
import { FakeVmms } from "../../support/fakes/vmms.ts";
import { assertMatches } from "../../support/host-trouble.ts";

const one = machineId("one");
const two = machineId("two");
const m = snapshotId("m");

/** A host with a machine, a snapshot `m` of it with memory, and one `d` of its disk alone. */
async function withSnapshots(
  create: object = {},
  options: Parameters<typeof makeFakeHost>[0] = {},
): Promise<FakeHost> {
  const fakes = await makeFakeHost(options);
  const { host } = fakes;
  await host.create({ machine_id: "one", ...create }, host.trace());
  await host.snapshot(one, { snapshot_id: "m", memory: true }, host.trace());
  await host.snapshot(one, { snapshot_id: "d" }, host.trace());
  return fakes;
}

const restore = ({ host }: FakeHost, machine_id: string, more: Partial<RestoreSnapshot> = {}, from = "m") =>
  host.restore(snapshotId(from), { machine_id, ...more }, host.trace());
const jailOf = ({ vmms, state }: FakeHost, id = two) =>
  vmms.jails.get(state.state.machines.get(id)?.vmm?.jail_id ?? "");

/** Runs `refused`, which must throw what `expected` says, without a trace on the host or in the state. */
async function assertTouchesNothing(
  fakes: FakeHost,
  refused: () => Promise<unknown>,
  expected: object,
): Promise<void> {
  const commit = fakes.state.commit.bind(fakes.state);
  let commits = 0;
  fakes.state.commit = async (...changes) => {
    commits += 1;
    await commit(...changes);
  };
  const before = fakes.storage.calls.length;
  const jails = fakes.vmms.jails.size;
  await assert.rejects(refused(), expected);
  fakes.state.commit = commit;
  const looks = /^(readManifest|checkSnapshot|imageFiles)/;
  const touched = fakes.storage.calls.slice(before).filter((call) => !looks.test(call));
  assert.deepEqual([touched, commits, fakes.vmms.jails.size - jails], [[], 0, 0]);
  await assertMatches(fakes, "after a refusal");
}

async function changeManifest(
  { storage }: FakeHost,
  change: (manifest: Manifest) => Partial<Manifest>,
): Promise<void> {
  const folder = storage.snapshots.get(m);
  assert.ok(folder?.manifest !== undefined);
  storage.snapshots.set(m, { ...folder, manifest: { ...folder.manifest, ...change(folder.manifest) } });
  await storage.readManifest(m);
}

test("a woken guest is another one before its way out opens, and was loaded from the snapshot's own files", async () => {
  const told: string[] = [];
  const vmms = new FakeVmms();
  const guestState = () => [...vmms.jails.values()].at(-1)?.state;
  class Guests extends FakeGuests {
    override async makeUnique(frozen: GuestAddress, seed: NewSeed, signal: AbortSignal) {
      told.push(`unique: ${guestState()}`);
      return await super.makeUnique(frozen, seed, signal);
    }
    override async waitReady(guest: GuestAddress, signal: AbortSignal): Promise<void> {
      told.push(`ready: ${guest.ssh_host_public_key}`);
      await super.waitReady(guest, signal);
    }
  }
  class Network extends FakeNetwork {
    override async openEgress(slot: Slot): Promise<void> {
      told.push("egress");
      await super.openEgress(slot);
    }
  }
  await using fakes = await withSnapshots(
    {},
    { rooms: { vmms, guests: new Guests(), network: new Network() } },
  );
  told.length = 0;
  const { machine } = await restore(fakes, "two");
  assert.deepEqual(told, ["unique: running", `ready: ${machine.guest_ssh_host_public_key}`, "egress"]);
  const jail = jailOf(fakes);
  assert.deepEqual([jail?.hardware, jail?.state], [undefined, "running"]);
  const linked = new Map(jail?.spec.files.map(({ path, source }) => [path, source]));
  assert.deepEqual(
    ["/memory", "/vmstate", "/disk.img", "/seed.img", "/kernel", "/initrd"].map((path) => linked.get(path)),
    [
      "/fake/snapshots/m/memory.img",
      "/fake/snapshots/m/vmstate.bin",
      "/fake/two/disk.img",
      "/fake/two/seed.img",
      undefined,
      undefined,
    ],
  );
  assert.deepEqual(jail?.frozen?.metadata, { latest: { "meta-data": { "local-hostname": "two" } } });
});

test("a woken guest is reached by what it was, becomes what its seed says, and the receipt is kept", async () => {
  await using fakes = await withSnapshots();
  const source = fakes.host.getMachine(one);
  const { machine } = await restore(fakes, "two", { guest_config: { hostname: "twin" } });
  const [asked] = fakes.guests.madeUnique;
  assert.deepEqual(asked?.frozen, {
    host: machine.runtime_host,
    ssh_host_public_key: source.guest_ssh_host_public_key,
    login_key: fakes.guests.loginKey(source.guest_machine_id),
  });
  assert.equal(asked?.seed.hostname, "twin");
  assert.deepEqual(await fakes.storage.readSeed(two), asked?.seed.bytes);
  assert.deepEqual(
    machine.receipt?.map(({ item, done }) => [item, done]),
    RECEIPT_ITEMS.map((item) => [item, true]),
  );
  assert.deepEqual(fakes.host.getMachine(two), machine);
});

test("twins that wake at once share the memory and nothing else", async () => {
  await using fakes = await withSnapshots();
  const twins = await Promise.all(["two", "three", "four"].map((id) => restore(fakes, id)));
  for (const fact of ["runtime_host", "hostname", "guest_machine_id", "guest_ssh_host_public_key"] as const)
    assert.equal(new Set(twins.map(({ machine }) => machine[fact])).size, 3, fact);
  const memories = ["two", "three", "four"].map(
    (id) => jailOf(fakes, machineId(id))?.spec.files.find(({ path }) => path === "/memory")?.source,
  );
  assert.deepEqual(new Set(memories), new Set(["/fake/snapshots/m/memory.img"]));
  await assertMatches(fakes, "with twins");
});

test("a guest that nobody logs in to is woken as it is, and its receipt says so", async () => {
  await using fakes = await withSnapshots({ ready: "started" });
  const { machine } = await restore(fakes, "two", { ready: "started" });
  assert.equal(fakes.guests.madeUnique.length, 0);
  assert.deepEqual(
    machine.receipt?.map(({ item, done }) => [item, done]),
    RECEIPT_ITEMS.map((item) => [item, false]),
  );
  for (const { how } of machine.receipt ?? []) assert.match(how, /does not log in/);
});

test("a guest that cannot be made another one is undone and never reached the outside", async () => {
  await using fakes = await withSnapshots({}, { readyTimeoutMs: 50 });
  const opened: number[] = [];
  const openEgress = fakes.network.openEgress.bind(fakes.network);
  fakes.network.openEgress = async (slot) => {
    opened.push(slot.index);
    await openEgress(slot);
  };
  fakes.guests.canMakeUnique = false;
  fakes.storage.consoleTail = "last words";
  await assert.rejects(restore(fakes, "two"), (error) => {
    assert.ok(error instanceof AppError);
    assert.deepEqual([error.code, error.details?.["console_tail"]], ["guest_not_ready", "last words"]);
    return true;
  });
  fakes.guests.canMakeUnique = true;
  fakes.guests.everAnswersWhenWoken = false;
  await assert.rejects(restore(fakes, "two"), { code: "guest_not_ready", message: /within 0\.05 s/ });
  assert.deepEqual(opened, []);
  await assertMatches(fakes, "after failures");
});

test("a key of the frozen guest that is none is the snapshot's fault, not the guest's", async () => {
  class Guests extends FakeGuests {
    override makeUnique(): Promise<never> {
      return Promise.reject(new AppError("snapshot_invalid", "the login key is no key"));
    }
  }
  await using fakes = await withSnapshots({}, { rooms: { guests: new Guests() } });
  await assert.rejects(restore(fakes, "two"), { code: "snapshot_invalid", message: /no key/ });
  await assertMatches(fakes, "after a failure");
});

test("a delete ends a restore whose guest does not answer", async () => {
  await using fakes = await withSnapshots({}, { readyTimeoutMs: 60_000 });
  fakes.guests.everAnswersWhenWoken = false;
  const restoring = assert.rejects(restore(fakes, "two"), { code: "operation_cancelled" });
  for (let turn = 0; turn < 1000 && fakes.guests.madeUnique.length === 0; turn += 1)
    await new Promise(setImmediate);
  await fakes.host.delete(two, fakes.trace());
  await restoring;
  await assertMatches(fakes, "after the delete");
});

test("what wakes can't have another size than what was frozen; what boots can", async () => {
  await using fakes = await withSnapshots();
  for (const [field, value] of [
    ["memory_mib", 256],
    ["vcpus", 2],
    ["storage_bytes", 2 ** 30],
  ] as const) {
    const refused = () => restore(fakes, "two", { [field]: value });
    await assertTouchesNothing(fakes, refused, { code: "snapshot_incompatible", message: new RegExp(field) });
  }
  const { machine } = await restore(fakes, "two", { memory_mib: 512, vcpus: 1 });
  assert.ok(machine.receipt !== undefined, "its own size is no other");
  const cold = await restore(fakes, "three", { memory: false, memory_mib: 256, storage_bytes: 2 ** 30 });
  assert.deepEqual([cold.machine.memory_mib, cold.machine.storage_bytes], [256, 2 ** 30]);
  assert.equal(cold.machine.receipt, undefined, "it booted");
  await assertMatches(fakes, "with both");
});

test("a disk snapshot has no memory to wake from, and boots", async () => {
  await using fakes = await withSnapshots();
  await assertTouchesNothing(fakes, () => restore(fakes, "two", { memory: true }, "d"), {
    code: "snapshot_incompatible",
    message: /no memory/,
  });
  const { machine } = await restore(fakes, "two", {}, "d");
  assert.deepEqual([machine.receipt, jailOf(fakes)?.frozen], [undefined, undefined]);
});

for (const [what, [spoil, code]] of Object.entries({
  "of a newer format": [
    ({ vmms }: FakeHost) => {
      vmms.snapshotFormat = "10.0.0";
    },
    "other_snapshot_format",
  ],
  "of another VMM": [
    (fakes: FakeHost) => changeManifest(fakes, ({ vmm }) => ({ vmm: { ...vmm, name: "another" } })),
    "other_vmm",
  ],
  "of another processor": [
    (fakes: FakeHost) =>
      changeManifest(fakes, ({ host }) => ({ host: { ...host, cpu_flags: [...host.cpu_flags, "zz9"] } })),
    "cpu_features_missing",
  ],
  "with memory in huge pages": [
    (fakes: FakeHost) =>
      changeManifest(fakes, ({ hardware }) => ({ hardware: { ...hardware, huge_pages: "2M" } })),
    "huge_pages",
  ],
  "that does not say who its guest is": [
    (fakes: FakeHost) => {
      const folder = fakes.storage.snapshots.get(m);
      assert.ok(folder?.manifest !== undefined);
      const { guest: _guest, ...manifest } = folder.manifest;
      fakes.storage.snapshots.set(m, { ...folder, manifest });
    },
    "guest_unknown",
  ],
} as const)) {
  test(`a snapshot ${what} is refused with the verdict, and never booted unasked`, async () => {
    await using fakes = await withSnapshots();
    await spoil(fakes);
    const verdict = await fakes.host.compatibility(m);
    assert.deepEqual([verdict.restorable, verdict.reasons.map((reason) => reason.code)], ["disk", [code]]);
    for (const asked of [{}, { memory: true }]) {
      await assertTouchesNothing(fakes, () => restore(fakes, "two", asked), {
        code: "snapshot_incompatible",
        details: { verdict },
        message: /with memory: false it boots/,
      });
    }
    // A huge page pool is no part of a test host, and a guest in huge pages boots in such.
    if (code !== "huge_pages") await restore(fakes, "two", { memory: false });
    await assertMatches(fakes, "after all");
  });
}

test("a snapshot of another architecture is not restored at all", async () => {
  await using fakes = await withSnapshots();
  await changeManifest(fakes, ({ host }) => ({ host: { ...host, architecture: "vax" } }));
  for (const asked of [{}, { memory: false }]) {
    await assertTouchesNothing(fakes, () => restore(fakes, "two", asked), {
      code: "snapshot_incompatible",
      message: /vax(?!.*memory: false)/,
    });
  }
  assert.equal((await fakes.host.compatibility(m)).restorable, "no");
});

test("a snapshot whose memory is gone is refused by that name; its disk boots when asked to", async () => {
  for (const kind of ["memory", "vmstate"] as const) {
    await using fakes = await withSnapshots();
    fakes.storage.snapshots.get(m)?.files?.delete(kind);
    await assert.rejects(restore(fakes, "two"), {
      code: "snapshot_invalid",
      message: new RegExp(kind),
    });
    assert.equal(fakes.state.state.machines.size, 1);
    const { restorable, reasons } = await fakes.host.compatibility(m);
    assert.deepEqual([restorable, reasons.map(({ code }) => code)], ["disk", ["damaged"]]);
    await restore(fakes, "two", { memory: false });
  }
});

test("a VMM that refuses what it loads fails the restore, and all of it is undone", async () => {
  await using fakes = await withSnapshots();
  fakes.vmms.fail.load = new AppError("vmm_failed", "Failed to load guest memory");
  await assert.rejects(restore(fakes, "two"), { code: "vmm_failed", message: /guest memory/ });
  await assertMatches(fakes, "after a refusal");
  fakes.vmms.fail = {};
  await restore(fakes, "two");
});

test("what wakes tracks its pages as its source did, and can be kept by a diff at once", async () => {
  await using fakes = await withSnapshots({ track_dirty_pages: true });
  await restore(fakes, "two");
  assert.equal(jailOf(fakes)?.frozen?.track_dirty_pages, true);
  assert.equal(fakes.storage.machines.get(two)?.memoryBase, "m");
  // The source's snapshot may go: the machine has the memory by a link of its own.
  await fakes.host.deleteSnapshot(m, fakes.trace());
  const diff = await fakes.host.snapshot(two, { snapshot_id: "m2", memory: "diff" }, fakes.trace());
  assert.equal(diff.memory, "diff");
  const { machine } = await restore(fakes, "three", {}, "m2");
  assert.ok(machine.receipt !== undefined);
  await assertMatches(fakes, "three generations");
});

test("a woken machine that stops and starts boots from its own disk and seed, as who it is", async () => {
  await using fakes = await withSnapshots({ track_dirty_pages: true });
  const { machine } = await restore(fakes, "two");
  const seeds = fakes.storage.seedsWritten;
  await fakes.host.stop(two, fakes.trace());
  const started = await fakes.host.start(two, fakes.trace());
  assert.deepEqual(
    [started.guest_machine_id, started.guest_ssh_host_public_key, started.receipt],
    [machine.guest_machine_id, machine.guest_ssh_host_public_key, undefined],
  );
  const { frozen, hardware } = jailOf(fakes) ?? {};
  assert.equal(frozen, undefined);
  assert.match(
    hardware?.boot_args ?? "",
    new RegExp(fakes.state.state.machines.get(two)?.identity.seed_sha256 ?? "no seed"),
  );
  assert.deepEqual(hardware?.metadata, { latest: { "meta-data": { "local-hostname": "two" } } });
  assert.equal(fakes.storage.seedsWritten, seeds, "the seed is the one it was given");
  await assertMatches(fakes, "started");
});

test("the same restore again finds the machine, also once it was started again and the snapshot is gone", async () => {
  await using fakes = await withSnapshots();
  const first = await restore(fakes, "two");
  const cold = await restore(fakes, "three", { memory: false });
  const assertFound = async (when: string): Promise<void> => {
    for (const asked of [{}, { memory: true }]) {
      const again = await restore(fakes, "two", asked);
      assert.deepEqual([again.created, again.machine.id], [false, first.machine.id], when);
    }
    await assert.rejects(restore(fakes, "two", { memory: false }), { code: "machine_exists" }, when);
    const found = await restore(fakes, "three", { memory: false });
    assert.deepEqual([found.created, found.machine.id], [false, cold.machine.id], when);
    await assert.rejects(restore(fakes, "three"), { code: "machine_exists" }, when);
  };
  await assertFound("at once");
  await fakes.host.stop(two, fakes.trace());
  await fakes.host.start(two, fakes.trace());
  await assertFound("after a start");
  await fakes.host.deleteSnapshot(m, fakes.trace());
  const again = await restore(fakes, "two");
  assert.equal(again.created, false, "after the snapshot was deleted");
});
