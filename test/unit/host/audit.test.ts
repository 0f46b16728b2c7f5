import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { restarted } from "../../support/host-trouble.ts";

const one = machineId("one");

/** What the audit says is not as it should be. */
async function wrong({ host }: FakeHost): Promise<string[]> {
  const { items, clean } = await host.audit();
  const found = items.filter(({ status }) => status !== "ok");
  assert.equal(clean, found.length === 0);
  return found.map(({ status, resource, name }) => `${status} ${resource} ${name}`);
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt += 1, await sleep(10)) if (condition()) return;
  assert.fail(`it never came to be that ${what}`);
}

test("everything has its owner: the machine, the snapshot, and nobody where there is no record", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.snapshot(one, { snapshot_id: "s1" }, fakes.trace());
  const { items, clean } = await fakes.host.audit();
  assert.equal(clean, true);
  assert.deepEqual(new Set(items.map(({ owner }) => owner)), new Set(["machine one", "snapshot s1"]));

  await fakes.network.acquire();
  await fakes.storage.makeMachine(machineId("two"));
  assert.deepEqual(await wrong(fakes), [
    "leaked folder /fake/machines/two",
    `leaked namespace ${fakes.network.slot(1).netns}`,
  ]);
  const { repaired, audit } = await fakes.host.repair();
  assert.deepEqual(
    repaired.map(({ ok }) => ok),
    [true, true],
  );
  assert.equal(audit.clean, true);
  assert.deepEqual([fakes.network.held, [...fakes.storage.machines.keys()]], [new Set([0]), ["one"]]);
});

test("what an operation under way works on is its own, and no repair touches it", async () => {
  await using fakes = await makeFakeHost();
  const held = Promise.withResolvers<void>();
  fakes.vmms.hold.boot = held.promise;
  const creating = fakes.host.create({ machine_id: "one" }, fakes.trace());
  await until(() => fakes.vmms.jails.size === 1, "there is a jail");
  const { items } = await fakes.host.audit();
  assert.ok(items.length > 2);
  assert.deepEqual(new Set(items.map(({ owner }) => owner)), new Set(["operation create:one"]));
  fakes.network.broken = [
    {
      resource: "link",
      name: "tap0",
      holder: { of: "slot", index: 0 },
      status: "missing",
    },
  ];
  assert.deepEqual((await fakes.host.repair()).repaired, []);
  held.resolve();
  await creating;
  assert.deepEqual(await wrong(fakes), ["missing link tap0"]);
  assert.deepEqual(
    (await fakes.host.repair()).repaired.map(({ ok }) => ok),
    [true],
  );
  assert.deepEqual(await wrong(fakes), []);
});

test("a VMM that is gone makes its machine failed, also where nobody was told of its death", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  const jail = [...fakes.vmms.jails.values()][0];
  jail?.watchers.clear();
  jail?.die();
  assert.deepEqual(await wrong(fakes), ["missing process jail1"]);
  const { repaired, audit } = await fakes.host.repair();
  assert.deepEqual(
    repaired.map(({ action, ok }) => [action, ok]),
    [["recorded the end of the VMM", true]],
  );
  assert.equal(audit.clean, true);
  const { phase, ended } = fakes.host.getMachine(one);
  assert.deepEqual([phase, ended?.how], ["failed", "killed"]);
  assert.deepEqual([fakes.vmms.jails.size, fakes.network.held.size], [0, 0]);
});

for (const state of ["running", "stopped"] as const) {
  test(`a ${state} machine whose disk is gone is failed, and says so`, async () => {
    await using fakes = await makeFakeHost();
    await fakes.host.create({ machine_id: "one", restart: "always" }, fakes.trace());
    if (state === "stopped") await fakes.host.stop(one, fakes.trace());
    fakes.storage.machines.set(one, {});
    await fakes.host.repair();
    const { phase, error, ended, restarts } = fakes.host.getMachine(one);
    assert.deepEqual([phase, ended?.how, restarts], ["failed", "disk_gone", undefined]);
    assert.match(error ?? "", /its disk is gone/);
    assert.deepEqual([fakes.vmms.jails.size, fakes.network.held.size], [0, 0]);
  });
}

test("what cannot be mended is told with the reason, and the rest is mended", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  fakes.network.broken = [
    { resource: "link", name: "tap0", holder: { of: "slot", index: 0 }, status: "missing" },
  ];
  fakes.network.failMend = "no permission";
  await fakes.storage.makeMachine(machineId("two"));
  const { repaired, audit } = await fakes.host.repair();
  assert.deepEqual(
    repaired.map(({ name, ok, reason }) => [name, ok, reason]),
    [
      ["/fake/machines/two", true, undefined],
      ["tap0", false, "no permission"],
    ],
  );
  assert.equal(audit.clean, false);
});

test("while a record cannot be read nothing is a leftover: it may own anything", async () => {
  await using fakes = await makeFakeHost();
  fakes.state.setAside.push({ kind: "machine", id: undefined, reason: "no id", record: {} });
  await fakes.storage.makeMachine(machineId("two"));
  const { repaired } = await fakes.host.repair();
  assert.deepEqual(
    repaired.map(({ ok, reason }) => [ok, reason]),
    [[false, "a record of the state that cannot be read may own it"]],
  );
  assert.equal(fakes.storage.machines.size, 1);
});

test("a delete of an id whose record cannot be read is refused and says what to do", async () => {
  await using fakes = await makeFakeHost();
  fakes.state.setAside.push({
    kind: "machine",
    id: "one",
    reason: "vcpus is no number",
    record: { id: "one" },
  });
  fakes.state.setAside.push({ kind: "snapshot", id: "s1", reason: "disk is missing", record: { id: "s1" } });
  for (const refused of [
    fakes.host.delete(one, fakes.trace()),
    fakes.host.deleteSnapshot(snapshotId("s1"), fakes.trace()),
  ]) {
    await assert.rejects(refused, (error: unknown) => {
      assert.ok(error instanceof AppError);
      assert.deepEqual([error.code, error.status], ["record_set_aside", 409]);
      assert.match(error.message, /(vcpus is no number|disk is missing).*start it/s);
      return true;
    });
  }
});

test("a failed create whose undo fails is kept with its first error, tried again, and then gone", async () => {
  await using fakes = await makeFakeHost({ reconcileIntervalMs: 20 });
  fakes.vmms.fail = {
    boot: new AppError("vmm_failed", "no kernel"),
    release: new AppError("vmm_timeout", "it does not die"),
  };
  await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()), /no kernel/);
  const { phase, error } = fakes.host.getMachine(one);
  assert.equal(phase, "failed");
  assert.match(error ?? "", /the create failed \(no kernel\) and could not be undone wholly yet: jail/);
  await until(() => fakes.state.state.operations.has("create:one"), "the operation is kept");
  const { items } = await fakes.host.audit();
  const operation = items.find(({ resource }) => resource === "operation");
  assert.deepEqual([operation?.name, operation?.status], ["create:one", "altered"]);

  fakes.vmms.fail = {};
  await until(() => fakes.state.state.operations.size === 0, "it was taken up again");
  assert.deepEqual(
    [fakes.state.state.machines.size, fakes.vmms.jails.size, fakes.network.held.size],
    [0, 0, 0],
  );
  assert.deepEqual(await wrong(fakes), []);
});

test("a create of an id whose earlier create could not be undone undoes that first", async () => {
  await using fakes = await makeFakeHost();
  fakes.vmms.fail = {
    boot: new AppError("vmm_failed", "no kernel"),
    release: new AppError("vmm_timeout", "it does not die"),
  };
  await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()), /no kernel/);
  fakes.vmms.fail = {};
  const { machine, created } = await fakes.host.create({ machine_id: "one" }, fakes.trace());
  assert.deepEqual([machine.phase, created], ["running", true]);
  assert.deepEqual(await wrong(fakes), []);
});

test("tries of what cannot be undone back off", async () => {
  await using fakes = await makeFakeHost({ reconcileIntervalMs: 10 });
  fakes.vmms.fail = {
    boot: new AppError("vmm_failed", "no kernel"),
    release: new AppError("vmm_timeout", "it does not die"),
  };
  await assert.rejects(fakes.host.create({ machine_id: "one" }, fakes.trace()));
  let tries = 0;
  fakes.vmms.release = () => {
    tries += 1;
    return Promise.reject(new AppError("vmm_timeout", "it does not die"));
  };
  await sleep(600);
  assert.equal(tries, 1, "the second comes a second after the first");
  fakes.vmms.fail = {};
});

test("a machine that ran when the host went down says so at the next start", async () => {
  const before = await makeFakeHost();
  await before.host.create({ machine_id: "one" }, before.trace());
  await before.host.close();
  for (const jail of before.vmms.jails.values()) jail.die();
  await using after = await restarted(before, undefined, "another-boot");
  const { phase, error, ended } = after.host.getMachine(one);
  assert.deepEqual([phase, ended?.how], ["failed", "host_restarted"]);
  assert.match(error ?? "", /the host was restarted/);
});
