import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";

const one = machineId("one");
const two = machineId("two");
const trouble = new AppError("disk_full", "full");

/** Makes the named calls fail until the returned function is called. */
function plant({ storage, vmms, state }: FakeHost, what: "removeMachine" | "takeBack" | "release" | "state") {
  if (what === "release") vmms.fail.release = trouble;
  else if (what === "state") state.failure = trouble;
  else storage.failures.set(what, trouble);
  return () => {
    delete vmms.fail.release;
    state.failure = undefined;
    storage.failures.clear();
  };
}

/** A slot that was given back while a record still names it would be taken from the machine that holds it by then. */
async function assertNobodyLoses(fakes: FakeHost, repair: () => Promise<void>): Promise<void> {
  await fakes.host.create({ machine_id: "two" }, fakes.trace());
  const slot = fakes.state.state.machines.get(two)?.slot?.index;
  assert.ok(slot !== undefined);
  await repair();
  assert.ok(fakes.network.held.has(slot), "the slot of another machine was given back");
  assert.deepEqual([...fakes.network.open_egress], [slot]);
  await fakes.host.delete(two, fakes.trace());
  assert.deepEqual([fakes.network.held.size, fakes.vmms.jails.size, fakes.storage.machines.size], [0, 0, 0]);
  assert.equal((await fakes.host.health()).memory.committed_mib, 0);
}

for (const what of ["removeMachine", "release"] as const) {
  test(`a delete that failed (${what}) and is tried again takes no slot from another machine`, async () => {
    await using fakes = await makeFakeHost();
    await fakes.host.create({ machine_id: "one" }, fakes.trace());
    const mend = plant(fakes, what);
    await assert.rejects(fakes.host.delete(one, fakes.trace()));
    mend();
    await assertNobodyLoses(fakes, () => fakes.host.delete(one, fakes.trace()));
  });
}

for (const what of ["takeBack", "release"] as const) {
  test(`a stop that failed (${what}) and is tried again takes no slot from another machine`, async () => {
    await using fakes = await makeFakeHost();
    await fakes.host.create({ machine_id: "one" }, fakes.trace());
    const mend = plant(fakes, what);
    await assert.rejects(fakes.host.stop(one, fakes.trace()));
    mend();
    await assertNobodyLoses(fakes, async () => {
      await fakes.host.stop(one, fakes.trace());
      assert.equal(fakes.host.getMachine(one).phase, "stopped");
      await fakes.host.delete(one, fakes.trace());
    });
  });
}

for (const what of ["removeMachine", "release"] as const) {
  test(`a create whose undo failed (${what}) keeps its slot and memory until it is deleted`, async () => {
    await using fakes = await makeFakeHost();
    fakes.vmms.fail.boot = new AppError("vmm_failed", "no");
    const mend = plant(fakes, what);
    await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()));
    delete fakes.vmms.fail.boot;
    mend();
    const left = fakes.host.getMachine(one);
    assert.equal(left.phase, "failed");
    assert.match(left.error ?? "", /could not be undone/);
    assert.ok(left.vmm !== undefined, "the process that may still run is not forgotten");
    assert.equal((await fakes.host.health()).memory.committed_mib, 512);
    await assertNobodyLoses(fakes, () => fakes.host.delete(one, fakes.trace()));
  });
}

test("a delete and a stop that could not be finished are finished as soon as they can be", async () => {
  await using fakes = await makeFakeHost({ reconcileIntervalMs: 20 });
  for (const machine_id of ["one", "two"]) await fakes.host.create({ machine_id }, fakes.trace());
  fakes.storage.failures.set("removeMachine", trouble);
  fakes.storage.failures.set("takeBack", trouble);
  await assert.rejects(fakes.host.delete(one, fakes.trace()));
  await assert.rejects(fakes.host.stop(two, fakes.trace()));
  fakes.storage.failures.clear();
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.deepEqual(
    fakes.host.listMachines().map(({ id, phase }) => [id, phase]),
    [["two", "stopped"]],
  );
  assert.deepEqual([fakes.network.held.size, fakes.state.state.operations.size], [0, 0]);
});

test("a VMM's death that could not be recorded takes no slot from another machine, and is recorded later", async () => {
  await using fakes = await makeFakeHost({ reconcileIntervalMs: 20 });
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  const mend = plant(fakes, "takeBack");
  [...fakes.vmms.jails.values()][0]?.die();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(fakes.host.getMachine(one).phase, "running");
  mend();
  await assertNobodyLoses(fakes, async () => {
    for (let tries = 0; tries < 100 && fakes.host.getMachine(one).phase === "running"; tries += 1)
      await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(fakes.host.getMachine(one).phase, "failed");
    await fakes.host.delete(one, fakes.trace());
  });
});
