import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { inUse } from "../../../src/host/in-use.ts";
import { FakeGuests } from "../../support/fakes/guests.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

const one = machineId("one");
const codeOf = (error: unknown): unknown => (error instanceof AppError ? error.code : error);

async function settled(done: () => boolean): Promise<void> {
  for (let turn = 0; turn < 1000 && !done(); turn += 1) await new Promise(setImmediate);
  assert.ok(done(), "it did not settle");
}

test("a stop lets the guest end, keeps disk and identity, and frees slot, jail and memory", async () => {
  await using fakes = await makeFakeHost();
  fakes.guests.onShutdown = () => [...fakes.vmms.jails.values()][0]?.die();
  const { machine } = await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.stop(one, fakes.trace());
  const stopped = fakes.host.getMachine(one);
  assert.equal(stopped.phase, "stopped");
  assert.equal(stopped.guest_ssh_host_public_key, machine.guest_ssh_host_public_key);
  assert.equal(stopped.runtime_host, undefined);
  assert.equal(fakes.state.state.machines.get(one)?.stopped_cleanly, true);
  assert.deepEqual([fakes.network.held.size, fakes.vmms.jails.size, fakes.storage.machines.size], [0, 0, 1]);
});

test("a guest that does not listen is killed at the limit, and the stop says it was not clean", async () => {
  await using fakes = await makeFakeHost();
  fakes.guests.canShutDown = false;
  fakes.vmms.guestsListen = false;
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.stop(one, fakes.trace());
  assert.equal(fakes.state.state.machines.get(one)?.stopped_cleanly, false);
  assert.equal(fakes.vmms.jails.size, 0);
});

test("a VMM that ends by itself leaves a failed machine without slot and jail, and with its disk", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  fakes.storage.consoleTail = "last words\n";
  [...fakes.vmms.jails.values()][0]?.die();
  await settled(() => fakes.host.getMachine(one).phase === "failed");
  assert.match(fakes.host.getMachine(one).error ?? "", /last words/);
  assert.deepEqual([fakes.network.held.size, fakes.vmms.jails.size, fakes.storage.machines.size], [0, 0, 1]);
});

test("a guest that powered itself off is stopped, not failed", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  fakes.storage.vmmLogTail = "Firecracker exiting successfully. exit_code=0";
  [...fakes.vmms.jails.values()][0]?.die();
  await settled(() => fakes.host.getMachine(one).phase === "stopped");
});

test("a snapshot whose clone fails lets the guest go on and leaves nothing", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  for (const call of ["stageSnapshot", "finishSnapshot"] as const) {
    fakes.storage.failures.set(call, new AppError("disk_full", "full"));
    await assert.rejects(
      fakes.host.snapshot(one, { snapshot_id: "s" }, fakes.trace()),
      (error) => codeOf(error) === "disk_full",
    );
    fakes.storage.failures.clear();
    assert.equal([...fakes.vmms.jails.values()][0]?.state, "running");
    assert.deepEqual([fakes.storage.snapshots.size, fakes.state.state.operations.size], [0, 0]);
  }
});

test("a snapshot says whether the guest wrote out first", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  assert.equal((await fakes.host.snapshot(one, { snapshot_id: "a" }, fakes.trace())).consistency, "synced");
  fakes.guests.canSync = false;
  assert.equal((await fakes.host.snapshot(one, { snapshot_id: "b" }, fakes.trace())).consistency, "crash");
});

test("snapshots outlive their machine, and a restored machine outlives its snapshot", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.snapshot(one, { snapshot_id: "s" }, fakes.trace());
  await fakes.host.delete(one, fakes.trace());
  assert.equal(fakes.host.listSnapshots(one).length, 1);
  await fakes.host.restore(snapshotId("s"), { machine_id: "two" }, fakes.trace());
  await fakes.host.deleteSnapshot(snapshotId("s"), fakes.trace());
  assert.equal(fakes.host.getMachine(machineId("two")).phase, "running");
  assert.equal(fakes.storage.snapshots.size, 0);
});

test("a failed machine has no disk to keep", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  [...fakes.vmms.jails.values()][0]?.die();
  await settled(() => fakes.host.getMachine(one).phase === "failed");
  await assert.rejects(
    fakes.host.snapshot(one, { snapshot_id: "s" }, fakes.trace()),
    (error) => codeOf(error) === "wrong_phase",
  );
});

test("the daemon's end refuses new work and lets go of guests that run on", async () => {
  const fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.close();
  await assert.rejects(
    fakes.host.create({ machine_id: "two" }, fakes.trace()),
    (error) => codeOf(error) === "shutting_down",
  );
  assert.equal([...fakes.vmms.jails.values()][0]?.state, "running");
});

test("a start takes over what runs, and notes what died meanwhile", async () => {
  const before = await makeFakeHost();
  await before.host.create({ machine_id: "one" }, before.trace());
  await before.host.create({ machine_id: "two" }, before.trace());
  await before.host.close();
  [...before.vmms.jails.values()][1]?.die();
  await using after = await makeFakeHost({ rooms: before });
  assert.equal(after.host.getMachine(one).phase, "running");
  assert.equal(after.host.getMachine(machineId("two")).phase, "failed");
  assert.deepEqual([...after.network.held], [0]);
  await after.host.delete(one, after.trace());
  assert.equal(after.vmms.jails.size, 0);
});

test("a start undoes the create that a crash cut off, and removes what nobody owns", async () => {
  const before = await makeFakeHost();
  before.guests.everReady = false;
  void before.host.create({ machine_id: "one" }, before.trace()).catch(() => {});
  await settled(() => [...before.vmms.jails.values()][0]?.state === "running");
  // The daemon is gone here: nothing of it runs any more but what it made.
  before.storage.machines.set(machineId("orphan"), {});
  before.storage.snapshots.set(snapshotId("orphan"), { finished: false, size: 0 });
  await using after = await makeFakeHost({ rooms: { ...before, guests: new FakeGuests() } });
  assert.deepEqual(after.host.listMachines(), []);
  assert.deepEqual(
    [
      after.vmms.jails.size,
      after.network.held.size,
      after.storage.machines.size,
      after.storage.snapshots.size,
    ],
    [0, 0, 0, 0],
  );
  assert.equal(after.state.state.operations.size, 0);
});

test("a start finishes a delete and a stop, and lets a guest go on that a snapshot left standing", async () => {
  const before = await makeFakeHost();
  for (const machine_id of ["gone", "ended", "standing"])
    await before.host.create({ machine_id }, before.trace());
  await before.host.close();
  const started_at = new Date().toISOString();
  await before.state.commit(
    {
      put: "operation",
      record: { id: "delete:gone", kind: "delete", machine_id: machineId("gone"), started_at },
    },
    {
      put: "operation",
      record: { id: "stop:ended", kind: "stop", machine_id: machineId("ended"), started_at },
    },
    {
      put: "operation",
      record: {
        id: "snapshot:s",
        kind: "snapshot",
        machine_id: machineId("standing"),
        snapshot_id: snapshotId("s"),
        started_at,
      },
    },
  );
  const standing = [...before.vmms.jails.values()][2];
  assert.ok(standing !== undefined);
  standing.state = "paused";
  await using after = await makeFakeHost({ rooms: before });
  assert.deepEqual(
    after.host.listMachines().map(({ id, phase }) => `${id} ${phase}`),
    ["ended stopped", "standing running"],
  );
  assert.equal(standing.state, "running");
  assert.equal(after.state.state.operations.size, 0);
  assert.equal(after.vmms.jails.size, 1);
});

test("a start never removes what a record holds that this version cannot read", async () => {
  const before = await makeFakeHost();
  await before.host.create({ machine_id: "odd" }, before.trace());
  await before.host.close();
  const record = before.state.state.machines.get(machineId("odd"));
  assert.ok(record !== undefined);
  await before.state.commit({ drop: "machine", id: record.id });
  before.state.setAside.push({ kind: "machine", id: "odd", reason: "a field of the future", record });
  await using after = await makeFakeHost({ rooms: before });
  assert.deepEqual(inUse(after.state).slots, [0]);
  assert.deepEqual(
    [...after.vmms.jails.values()].map(({ state }) => state),
    ["running"],
  );
  assert.ok(after.storage.machines.has(machineId("odd")));
  assert.match(JSON.stringify((await after.host.health()).warnings), /a field of the future/);

  after.state.setAside.push({ kind: "machine", id: undefined, reason: "not even an id", record: 7 });
  after.storage.machines.set(machineId("orphan"), {});
  await using again = await makeFakeHost({ rooms: after });
  assert.ok(
    again.storage.machines.has(machineId("orphan")),
    "nothing is a leftover while an owner may be unreadable",
  );
});
