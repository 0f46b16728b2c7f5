import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";

const one = machineId("one");
const MIB = 2 ** 20;

const refusedAs = (code: string) => (error: unknown) => error instanceof AppError && error.code === code;

async function settled(done: () => boolean): Promise<void> {
  for (let turn = 0; turn < 1000 && !done(); turn += 1) await new Promise(setImmediate);
  assert.ok(done(), "it did not settle");
}

function guestOf({ vmms }: FakeHost) {
  const [jail] = vmms.jails.values();
  assert.ok(jail !== undefined);
  return jail;
}

async function withStopped(options: Parameters<typeof makeFakeHost>[0] = {}) {
  const fakes = await makeFakeHost(options);
  const { machine } = await fakes.host.create({ machine_id: "one" }, fakes.trace());
  fakes.guests.onShutdown = () => guestOf(fakes).die();
  await fakes.host.stop(one, fakes.trace());
  return { ...fakes, machine };
}

/** Nothing of a start may be left: the machine is as the stop left it. */
async function assertStopped(fakes: FakeHost, phase = "stopped"): Promise<void> {
  const { host, network, vmms, storage, state } = fakes;
  assert.equal(host.getMachine(one).phase, phase);
  assert.deepEqual([network.held.size, network.open_egress.size, vmms.jails.size], [0, 0, 0]);
  assert.equal(storage.machines.get(one)?.disk, 512 * MIB);
  assert.equal(state.state.operations.size, 0);
  assert.equal((await host.health()).memory.committed_mib, 0);
}

test("a stopped machine runs again with its disk, its identity and its address", async () => {
  await using fakes = await withStopped();
  const { host, machine } = fakes;
  const seeds = fakes.storage.seedsWritten;
  // Others came and went meanwhile; one stays.
  await host.create({ machine_id: "other" }, fakes.trace());
  await host.create({ machine_id: "two" }, fakes.trace());
  await host.delete(machineId("other"), fakes.trace());
  const again = await host.start(one, fakes.trace());
  const { started_at, vmm, ...same } = machine;
  const { started_at: restarted_at, vmm: newVmm, ...found } = again;
  assert.deepEqual(found, same);
  assert.ok((restarted_at ?? "") >= (started_at ?? ""));
  assert.notEqual(newVmm?.jail_id, vmm?.jail_id);
  assert.equal(again.stopped_at, undefined);
  assert.equal(fakes.storage.seedsWritten, seeds + 2, "only the other machines' seeds were written");
  assert.deepEqual(await host.start(one, fakes.trace()), again, "a machine that runs is answered as it is");
});

test("where its slot has another holder, a machine starts in a free one", async () => {
  await using fakes = await withStopped();
  const { machine } = await fakes.host.create({ machine_id: "two" }, fakes.trace());
  assert.equal(machine.runtime_host, fakes.machine.runtime_host);
  const again = await fakes.host.start(one, fakes.trace());
  assert.notEqual(again.runtime_host, machine.runtime_host);
  assert.deepEqual(fakes.network.open_egress, new Set([0, 1]));
});

test("a machine whose VMM ended by itself starts again", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  guestOf(fakes).die();
  await settled(() => fakes.host.getMachine(one).phase === "failed");
  const again = await fakes.host.start(one, fakes.trace());
  assert.deepEqual([again.phase, again.error], ["running", undefined]);
});

test("a failed machine that cannot be started stays failed, and why is not forgotten", async () => {
  await using fakes = await makeFakeHost({ readyTimeoutMs: 50 });
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  guestOf(fakes).die();
  await settled(() => fakes.host.getMachine(one).phase === "failed");
  const { error } = fakes.host.getMachine(one);
  fakes.guests.everReady = false;
  await assert.rejects(fakes.host.start(one, fakes.trace()), refusedAs("guest_not_ready"));
  await assertStopped(fakes, "failed");
  assert.equal(fakes.host.getMachine(one).error, error);
});

const FAILURES: readonly (readonly [step: string, plant: (fakes: FakeHost) => void])[] = [
  ["the jail", ({ vmms }) => Object.assign(vmms.fail, { launch: new AppError("vmm_failed", "no") })],
  ["the boot", ({ vmms }) => Object.assign(vmms.fail, { boot: new AppError("vmm_failed", "no") })],
  ["readiness", ({ guests }) => Object.assign(guests, { everReady: false })],
  ["the intent", ({ state }) => Object.assign(state, { failure: new AppError("disk_full", "full") })],
];

for (const [step, plant] of FAILURES) {
  test(`a start that fails at ${step} leaves the machine stopped as before`, async () => {
    await using fakes = await withStopped({ readyTimeoutMs: 50 });
    plant(fakes);
    await assert.rejects(fakes.host.start(one, fakes.trace()));
    await assertStopped(fakes);
    const launched = step === "the boot" || step === "readiness";
    assert.equal(fakes.state.state.machines.get(one)?.stopped_cleanly, !launched);
  });
}

test("a start whose guest is never ready is 504 with the tail of its console", async () => {
  await using fakes = await withStopped({ readyTimeoutMs: 50 });
  fakes.guests.everReady = false;
  fakes.storage.consoleTail = "Kernel panic";
  await assert.rejects(fakes.host.start(one, fakes.trace()), (error: unknown) => {
    assert.ok(error instanceof AppError);
    assert.deepEqual([error.status, error.details?.["console_tail"]], [504, "Kernel panic"]);
    return true;
  });
});

test("a start that could not be undone keeps its slot, and the next one takes it up", async () => {
  await using fakes = await withStopped({ readyTimeoutMs: 50 });
  fakes.guests.everReady = false;
  fakes.vmms.fail.release = new AppError("vmm_timeout", "it does not die");
  await assert.rejects(fakes.host.start(one, fakes.trace()), refusedAs("guest_not_ready"));
  assert.match(fakes.host.getMachine(one).error ?? "", /could not be undone/);
  assert.deepEqual([...fakes.network.held], [0]);
  await assert.rejects(fakes.host.resize(one, { vcpus: 2 }, fakes.trace()), refusedAs("wrong_phase"));
  delete fakes.vmms.fail.release;
  fakes.guests.everReady = true;
  const again = await fakes.host.start(one, fakes.trace());
  assert.deepEqual([again.phase, again.error], ["running", undefined]);
  assert.deepEqual([fakes.vmms.jails.size, fakes.network.held.size], [1, 1]);
});

test("a delete ends the start that is under way", async () => {
  await using fakes = await withStopped({ readyTimeoutMs: 60_000 });
  fakes.guests.everReady = false;
  const starting = fakes.host.start(one, fakes.trace());
  const refused = assert.rejects(starting, refusedAs("operation_cancelled"));
  await settled(() => [...fakes.vmms.jails.values()][0]?.state === "running");
  await fakes.host.delete(one, fakes.trace());
  await refused;
  assert.deepEqual(fakes.host.listMachines(), []);
  assert.deepEqual([fakes.network.held.size, fakes.vmms.jails.size, fakes.storage.machines.size], [0, 0, 0]);
});

test("a stop that could not be finished is finished by a start", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  fakes.storage.failures.set("takeBack", new AppError("disk_full", "full"));
  await assert.rejects(fakes.host.stop(one, fakes.trace()));
  fakes.storage.failures.clear();
  assert.equal((await fakes.host.start(one, fakes.trace())).phase, "running");
  assert.deepEqual([guestOf(fakes).state, fakes.state.state.operations.size], ["running", 0]);
});

test("starts at the same time start it once", async () => {
  await using fakes = await withStopped();
  const answers = await Promise.all([1, 2, 3].map(() => fakes.host.start(one, fakes.trace())));
  assert.equal(new Set(answers.map(({ vmm }) => vmm?.jail_id)).size, 1);
  assert.equal(fakes.vmms.jails.size, 1);
});

test("a resize takes effect at the next start, and memory is promised then", async () => {
  await using fakes = await withStopped();
  const { limit_mib } = (await fakes.host.health()).memory;
  const resized = await fakes.host.resize(
    one,
    { memory_mib: limit_mib + 1, vcpus: 2, storage_bytes: 1024 * MIB },
    fakes.trace(),
  );
  assert.deepEqual(
    [resized.phase, resized.memory_mib, resized.vcpus, resized.storage_bytes],
    ["stopped", limit_mib + 1, 2, 1024 * MIB],
  );
  await assert.rejects(fakes.host.start(one, fakes.trace()), refusedAs("host_full"));
  assert.equal(fakes.host.getMachine(one).phase, "stopped");
  await fakes.host.resize(one, { memory_mib: 256 }, fakes.trace());
  await fakes.host.start(one, fakes.trace());
  const { spec, hardware } = guestOf(fakes);
  assert.deepEqual([hardware?.memory_mib, hardware?.vcpus], [256, 2]);
  assert.equal(spec.limits.fsize_bytes, (2 * 1024 + 256) * MIB, "a disk may double while it runs");
  assert.equal((await fakes.host.health()).memory.committed_mib, 256);
});

test("a disk only grows, and only while its machine is stopped", async () => {
  await using fakes = await withStopped();
  await assert.rejects(
    fakes.host.resize(one, { storage_bytes: 256 * MIB, memory_mib: 256 }, fakes.trace()),
    refusedAs("disk_too_small"),
  );
  assert.equal(fakes.host.getMachine(one).memory_mib, 512, "nothing of a refused resize is done");
  await fakes.host.start(one, fakes.trace());
  await assert.rejects(fakes.host.resize(one, { vcpus: 2 }, fakes.trace()), refusedAs("wrong_phase"));
  await fakes.host.pause(one, fakes.trace());
  await assert.rejects(fakes.host.resize(one, { vcpus: 2 }, fakes.trace()), refusedAs("wrong_phase"));
});

test("a disk that cannot grow leaves the machine as it was", async () => {
  await using fakes = await withStopped();
  fakes.storage.failures.set("growDisk", new AppError("disk_full", "full"));
  const growing = fakes.host.resize(one, { storage_bytes: 1024 * MIB, vcpus: 2 }, fakes.trace());
  await assert.rejects(growing, refusedAs("disk_full"));
  await assertStopped(fakes);
  assert.equal(fakes.host.getMachine(one).vcpus, 1);
});

test("a paused guest stands still until it is resumed, however often it is asked", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  for (const _ of [1, 2]) {
    const paused = await fakes.host.pause(one, fakes.trace());
    assert.deepEqual([paused.phase, paused.paused, guestOf(fakes).state], ["running", true, "paused"]);
  }
  for (const _ of [1, 2]) {
    const resumed = await fakes.host.resume(one, fakes.trace());
    assert.deepEqual(
      [resumed.phase, resumed.paused, guestOf(fakes).state],
      ["running", undefined, "running"],
    );
  }
  assert.equal(fakes.state.state.operations.size, 0);
});

test("only what runs can pause or resume", async () => {
  await using fakes = await withStopped();
  await assert.rejects(fakes.host.pause(one, fakes.trace()), refusedAs("wrong_phase"));
  await assert.rejects(fakes.host.resume(one, fakes.trace()), refusedAs("wrong_phase"));
  await assert.rejects(fakes.host.pause(machineId("none"), fakes.trace()), refusedAs("machine_not_found"));
});

test("a guest that could not be let go on after a failed pause is mended by a resume, or by a start of the daemon", async () => {
  const fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  const breakPause = async (): Promise<void> => {
    const commit = fakes.state.commit.bind(fakes.state);
    fakes.state.commit = async (...changes) => {
      await commit(...changes);
      fakes.state.failure = new AppError("disk_full", "full");
    };
    fakes.vmms.fail.resume = new AppError("vmm_timeout", "busy");
    await assert.rejects(fakes.host.pause(one, fakes.trace()));
    fakes.state.commit = commit;
    fakes.state.failure = undefined;
    delete fakes.vmms.fail.resume;
    assert.deepEqual([guestOf(fakes).state, fakes.host.getMachine(one).paused], ["paused", undefined]);
  };
  await breakPause();
  await fakes.host.resume(one, fakes.trace());
  assert.deepEqual([guestOf(fakes).state, fakes.state.state.operations.size], ["running", 0]);
  await breakPause();
  await fakes.host.close();
  await using after = await makeFakeHost({ rooms: fakes });
  assert.deepEqual([guestOf(after).state, after.state.state.operations.size], ["running", 0]);
});

test("a snapshot of a paused machine leaves it paused and says that the guest did not write out", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.pause(one, fakes.trace());
  const { consistency, paused_ms } = await fakes.host.snapshot(one, { snapshot_id: "s" }, fakes.trace());
  assert.deepEqual([consistency, paused_ms, guestOf(fakes).state], ["crash", 0, "paused"]);
  fakes.storage.failures.set("stageSnapshot", new AppError("disk_full", "full"));
  await assert.rejects(fakes.host.snapshot(one, { snapshot_id: "t" }, fakes.trace()));
  assert.equal(guestOf(fakes).state, "paused", "so does one that fails");
  const { machine } = await fakes.host.restore(snapshotId("s"), { machine_id: "two" }, fakes.trace());
  assert.equal(machine.paused, undefined);
});

test("a paused machine is woken to be stopped, and is not paused once it runs again", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  let stateWhenAsked = "";
  fakes.guests.onShutdown = () => {
    stateWhenAsked = guestOf(fakes).state;
    guestOf(fakes).die();
  };
  await fakes.host.pause(one, fakes.trace());
  await fakes.host.stop(one, fakes.trace());
  assert.equal(stateWhenAsked, "running");
  assert.equal(fakes.state.state.machines.get(one)?.stopped_cleanly, true);
  assert.equal(fakes.host.getMachine(one).paused, undefined);
  assert.equal((await fakes.host.start(one, fakes.trace())).paused, undefined);
});

test("a paused machine can be deleted, and its death is noted", async () => {
  await using fakes = await makeFakeHost();
  for (const machine_id of ["one", "two"]) {
    await fakes.host.create({ machine_id }, fakes.trace());
    await fakes.host.pause(machineId(machine_id), fakes.trace());
  }
  guestOf(fakes).die();
  await settled(() => fakes.host.getMachine(one).phase === "failed");
  assert.equal(fakes.host.getMachine(one).paused, undefined);
  await fakes.host.delete(machineId("two"), fakes.trace());
  assert.equal(fakes.vmms.jails.size, 0);
});

test("a start of the daemon keeps a paused machine paused", async () => {
  const before = await makeFakeHost();
  await before.host.create({ machine_id: "one" }, before.trace());
  await before.host.pause(one, before.trace());
  await before.host.close();
  await using after = await makeFakeHost({ rooms: before });
  assert.deepEqual([after.host.getMachine(one).paused, guestOf(after).state], [true, "paused"]);
  await after.host.resume(one, after.trace());
  assert.equal(guestOf(after).state, "running");
});
