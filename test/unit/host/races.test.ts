import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

const one = machineId("one");
const s1 = snapshotId("s1");
const codeOf = (error: unknown): unknown => (error instanceof AppError ? error.code : error);

test("a delete ends every create of its id that came before it, also those that wait for the first", async () => {
  await using fakes = await makeFakeHost({ readyTimeoutMs: 60_000 });
  fakes.guests.everReady = false;
  const creates = [1, 2, 3].map(() => fakes.host.create({ machine_id: "one" }, fakes.trace()));
  const ends = Promise.allSettled(creates);
  await sleep(20);
  await fakes.host.delete(one, fakes.trace());
  for (const end of await ends) {
    assert.equal(end.status === "rejected" ? codeOf(end.reason) : end.status, "operation_cancelled");
  }
  assert.deepEqual([fakes.network.held.size, fakes.vmms.jails.size], [0, 0]);
});

test("restores of one snapshot run side by side, and its delete waits for them", async () => {
  await using fakes = await makeFakeHost({ readyTimeoutMs: 60_000 });
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.snapshot(one, { snapshot_id: "s1" }, fakes.trace());
  const { promise, resolve } = Promise.withResolvers<void>();
  fakes.vmms.hold.boot = promise;
  const restores = ["a", "b", "c"].map((machine_id) => fakes.host.restore(s1, { machine_id }, fakes.trace()));
  await sleep(20);
  assert.equal(fakes.vmms.jails.size, 4, "all three are on their way at once");
  const deleted = fakes.host.deleteSnapshot(s1, fakes.trace());
  const late = fakes.host.restore(s1, { machine_id: "late" }, fakes.trace());
  const refused = assert.rejects(late, (error) => codeOf(error) === "snapshot_not_found");
  await sleep(20);
  assert.ok(fakes.storage.snapshots.has(s1));
  resolve();
  await Promise.all(restores);
  await deleted;
  await refused;
  assert.equal(fakes.storage.snapshots.size, 0);
});

test("a create that the host has no memory for fetches nothing first", async () => {
  await using fakes = await makeFakeHost();
  fakes.storage.failures.set("localImage", new Error("the image was fetched"));
  await assert.rejects(
    fakes.host.create({ machine_id: "one", memory_mib: 1_048_576 }, fakes.trace()),
    (error) => codeOf(error) === "host_full",
  );
});

test("a guest that could not be resumed after a snapshot is resumed at the next start", async () => {
  const before = await makeFakeHost();
  await before.host.create({ machine_id: "one" }, before.trace());
  before.vmms.fail.resume = new AppError("vmm_timeout", "busy");
  await assert.rejects(before.host.snapshot(one, { snapshot_id: "s1" }, before.trace()));
  assert.equal([...before.vmms.jails.values()][0]?.state, "paused");
  delete before.vmms.fail.resume;
  await before.host.close();
  await using after = await makeFakeHost({ rooms: before });
  assert.equal([...after.vmms.jails.values()][0]?.state, "running");
  assert.deepEqual([after.state.state.operations.size, after.storage.snapshots.size], [0, 0]);
});

test("a stop or delete that a crash cut off after its kill is finished as what it was", async () => {
  const before = await makeFakeHost();
  for (const machine_id of ["one", "two"]) await before.host.create({ machine_id }, before.trace());
  await before.host.close();
  const started_at = new Date().toISOString();
  await before.state.commit(
    { put: "operation", record: { id: "stop:one", kind: "stop", machine_id: one, started_at } },
    {
      put: "operation",
      record: { id: "delete:two", kind: "delete", machine_id: machineId("two"), started_at },
    },
  );
  for (const jail of before.vmms.jails.values()) jail.die();
  await using after = await makeFakeHost({ rooms: before });
  assert.deepEqual(
    after.host.listMachines().map(({ id, phase, error }) => [id, phase, error]),
    [["one", "stopped", undefined]],
  );
  assert.equal(after.state.state.operations.size, 0);
  assert.equal((await after.host.health()).memory.committed_mib, 0);
});

test("a start that cannot undo a create counts its memory all the same, and one bad jail hides no other", async () => {
  const before = await makeFakeHost();
  before.guests.everReady = false;
  void before.host.create({ machine_id: "one" }, before.trace()).catch(() => {});
  await sleep(20);
  assert.equal(before.vmms.jails.size, 1);
  before.vmms.fail.release = new AppError("vmm_timeout", "it does not die");
  before.storage.machines.set(machineId("orphan"), {});
  await using after = await makeFakeHost({ rooms: before });
  assert.equal((await after.host.health()).memory.committed_mib, 512);
  assert.ok(!after.storage.machines.has(machineId("orphan")));
  delete after.vmms.fail.release;
  await after.host.delete(one, after.trace());
  assert.deepEqual([after.network.held.size, after.vmms.jails.size], [0, 0]);
});

test("the daemon's end also breaks off creates that wait for another", async () => {
  const fakes = await makeFakeHost({ readyTimeoutMs: 60_000, closeTimeoutMs: 50 });
  fakes.guests.everReady = false;
  const creates = Promise.allSettled(
    [1, 2].map(() => fakes.host.create({ machine_id: "one" }, fakes.trace())),
  );
  await sleep(20);
  await fakes.host.close();
  for (const end of await creates)
    assert.equal(end.status === "rejected" ? codeOf(end.reason) : end.status, "shutting_down");
});

test("health says what is wrong with the network instead of failing over it", async () => {
  await using fakes = await makeFakeHost();
  fakes.network.warnings = () => Promise.reject(new Error("nft exited with 1"));
  const health = await fakes.host.health();
  assert.equal(health.ok, false);
  assert.match(JSON.stringify(health.warnings), /nft exited with 1/);
});

test("an id whose record cannot be read is taken: nothing is made over what it holds, and nothing of it is undone", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  fakes.storage.machines.set(machineId("odd"), {});
  fakes.storage.snapshots.set(s1, { finished: true, size: 1 });
  fakes.state.setAside.push(
    { kind: "machine", id: "odd", reason: "of the future", record: {} },
    { kind: "snapshot", id: "s1", reason: "of the future", record: {} },
  );
  const refusedAs = (code: string) => (error: unknown) => codeOf(error) === code;
  await assert.rejects(fakes.host.create({ machine_id: "odd" }, fakes.trace()), refusedAs("machine_exists"));
  const snapshot = fakes.host.snapshot(one, { snapshot_id: "s1" }, fakes.trace());
  await assert.rejects(snapshot, refusedAs("snapshot_exists"));
  assert.ok(fakes.storage.machines.has(machineId("odd")));
  assert.ok(fakes.storage.snapshots.has(s1));
});

test("a machine that was taken over is watched even when its way out could not be opened", async () => {
  const before = await makeFakeHost();
  await before.host.create({ machine_id: "one" }, before.trace());
  await before.host.close();
  const openEgress = before.network.openEgress.bind(before.network);
  before.network.openEgress = () => Promise.reject(new Error("nft exited with 1"));
  await using after = await makeFakeHost({ rooms: before });
  after.network.openEgress = openEgress;
  [...after.vmms.jails.values()][0]?.die();
  await sleep(20);
  assert.equal(after.host.getMachine(one).phase, "failed");
});

test("a guest whose create could not be undone has no way out", async () => {
  await using fakes = await makeFakeHost();
  const openEgress = fakes.network.openEgress.bind(fakes.network);
  fakes.network.openEgress = async (slot) => {
    await openEgress(slot);
    fakes.vmms.fail.release = new AppError("vmm_timeout", "it does not die");
    throw new AppError("disk_full", "full");
  };
  await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()));
  assert.equal(fakes.host.getMachine(one).phase, "failed");
  assert.deepEqual([fakes.network.open_egress.size, fakes.network.held.size], [0, 1]);
});
