import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";

/** Everything that a failed create could have left. */
function left({ state, network, storage, vmms }: FakeHost) {
  return {
    machines: [...state.state.machines.keys()],
    operations: [...state.state.operations.keys()],
    slots: [...network.held],
    open: [...network.open_egress],
    folders: [...storage.machines.keys()],
    jails: [...vmms.jails.keys()],
  };
}
const NOTHING = { machines: [], operations: [], slots: [], open: [], folders: [], jails: [] };

const codeOf = (error: unknown): unknown => (error instanceof AppError ? error.code : error);

test("a machine runs with what was asked for, and its way out is open", async () => {
  await using fakes = await makeFakeHost();
  const { machine, created } = await fakes.host.create(
    { machine_id: "one", vcpus: 2, memory_mib: 256 },
    fakes.trace(),
  );
  assert.ok(created);
  assert.equal(machine.phase, "running");
  assert.equal(machine.hostname, "one");
  const jail = [...fakes.vmms.jails.values()][0];
  assert.equal(jail?.hardware?.vcpus, 2);
  assert.equal(jail?.hardware?.memory_mib, 256);
  assert.match(
    jail?.hardware?.boot_args ?? "",
    /computer_host\.seed=vdb computer_host\.seed_digest=[0-9a-f]{64}/,
  );
  assert.deepEqual([...fakes.network.open_egress], [0]);
  assert.equal(fakes.state.state.operations.size, 0);
  assert.equal(fakes.vmms.linuxBooted, 1);
});

test("the intent is durable before anything is made, and the end before the answer", async () => {
  await using fakes = await makeFakeHost();
  fakes.storage.failures.set("makeMachine", new Error("power is gone"));
  await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()));
  assert.deepEqual(
    fakes.state.changes.map((change) => ("put" in change ? `put ${change.put}` : `drop ${change.drop}`)),
    ["put operation", "put machine", "drop machine", "drop operation"],
  );
});

const FAILURES: readonly (readonly [step: string, plant: (fakes: FakeHost) => void])[] = [
  ["the image", ({ storage }) => storage.failures.set("localImage", new AppError("image_not_found", "gone"))],
  ["the folder", ({ storage }) => storage.failures.set("makeMachine", new Error("EIO"))],
  ["the disk", ({ storage }) => storage.failures.set("cloneImageDisk", new AppError("disk_full", "full"))],
  ["the jail", ({ vmms }) => Object.assign(vmms.fail, { launch: new AppError("vmm_failed", "no") })],
  ["the boot", ({ vmms }) => Object.assign(vmms.fail, { boot: new AppError("vmm_failed", "no") })],
  ["readiness", ({ guests }) => Object.assign(guests, { everReady: false })],
  ["the intent", ({ state }) => Object.assign(state, { failure: new AppError("disk_full", "full") })],
];

for (const [step, plant] of FAILURES) {
  test(`a create that fails at ${step} leaves nothing`, async () => {
    await using fakes = await makeFakeHost({ readyTimeoutMs: 50 });
    plant(fakes);
    await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()));
    assert.deepEqual(left(fakes), NOTHING);
    assert.equal((await fakes.host.health()).memory.committed_mib, 0);
  });
}

test("a guest that is never ready is 504 with the tail of its console", async () => {
  await using fakes = await makeFakeHost({ readyTimeoutMs: 50 });
  fakes.guests.everReady = false;
  fakes.storage.consoleTail = "Kernel panic - not syncing";
  await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()), (error: unknown) => {
    assert.ok(error instanceof AppError);
    assert.deepEqual([error.code, error.status], ["guest_not_ready", 504]);
    assert.equal(error.details?.["console_tail"], "Kernel panic - not syncing");
    return true;
  });
});

test("a VMM that dies while the guest boots ends the wait at once", async () => {
  await using fakes = await makeFakeHost({ readyTimeoutMs: 60_000 });
  fakes.guests.everReady = false;
  const creating = fakes.host.create({ machine_id: "one" }, fakes.trace());
  while ([...fakes.vmms.jails.values()][0]?.state !== "running") await new Promise(setImmediate);
  for (const jail of fakes.vmms.jails.values()) jail.die();
  await assert.rejects(creating, (error) => codeOf(error) === "guest_not_ready");
  assert.deepEqual(left(fakes), NOTHING);
});

test("an undo that fails hides nothing, and the intent stays for the next start", async () => {
  await using fakes = await makeFakeHost({ readyTimeoutMs: 50 });
  fakes.guests.everReady = false;
  fakes.storage.failures.set("removeMachine", new Error("EIO"));
  await assert.rejects(
    fakes.host.create({ machine_id: "one" }, fakes.trace()),
    (error) => codeOf(error) === "guest_not_ready",
  );
  assert.equal(fakes.host.getMachine(machineId("one")).phase, "failed");
  assert.deepEqual(left(fakes).operations, ["create:one"]);
  assert.deepEqual(left(fakes).slots, [0], "the slot stays as long as a record names it");
  fakes.storage.failures.clear();
  await fakes.host.delete(machineId("one"), fakes.trace());
  assert.deepEqual(left(fakes), NOTHING);
});

test("ten identical creates at once make one machine", async () => {
  await using fakes = await makeFakeHost();
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => fakes.host.create({ machine_id: "one" }, fakes.trace())),
  );
  assert.equal(answers.filter(({ created }) => created).length, 1);
  assert.equal(fakes.vmms.jails.size, 1);
});

test("creates of different ids run side by side, and the one beyond the slots is refused", async () => {
  await using fakes = await makeFakeHost({ slots: 3 });
  const results = await Promise.allSettled(
    ["a", "b", "c", "d"].map((machine_id) =>
      fakes.host.create({ machine_id, memory_mib: 64 }, fakes.trace()),
    ),
  );
  const refused = results.filter((result) => result.status === "rejected");
  assert.deepEqual(
    refused.map(({ reason }) => codeOf(reason)),
    ["host_full"],
  );
  assert.equal(fakes.vmms.jails.size, 3);
});

test("a delete ends the create that is under way, and undoes it", async () => {
  await using fakes = await makeFakeHost({ readyTimeoutMs: 60_000 });
  fakes.guests.everReady = false;
  const creating = fakes.host.create({ machine_id: "one" }, fakes.trace());
  const refused = assert.rejects(creating, (error) => codeOf(error) === "operation_cancelled");
  while (fakes.vmms.jails.size === 0) await new Promise(setImmediate);
  await fakes.host.delete(machineId("one"), fakes.trace());
  await refused;
  assert.deepEqual(left(fakes), NOTHING);
});

test("memory is promised once: what the host cannot hold is refused before anything starts", async () => {
  await using fakes = await makeFakeHost();
  const { limit_mib } = (await fakes.host.health()).memory;
  const half = Math.floor(limit_mib / 2);
  await fakes.host.create({ machine_id: "a", memory_mib: half }, fakes.trace());
  await assert.rejects(
    fakes.host.create({ machine_id: "b", memory_mib: half + 64 }, fakes.trace()),
    (error) => codeOf(error) === "host_full",
  );
  assert.deepEqual([...fakes.network.held], [0]);
  await fakes.host.stop(machineId("a"), fakes.trace());
  await fakes.host.create({ machine_id: "b", memory_mib: half + 64 }, fakes.trace());
});
