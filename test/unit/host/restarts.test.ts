import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { Restart } from "../../../src/contract/machine.ts";
import { backOffMs } from "../../../src/host/back-off.ts";
import { nextRestart } from "../../../src/host/restart-policy.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { restarted } from "../../support/host-trouble.ts";

const one = machineId("one");
const CLEAN = "Firecracker exiting successfully. exit_code=0";

async function withMachine(restart: Restart): Promise<FakeHost> {
  const fakes = await makeFakeHost({ readyTimeoutMs: 50 });
  await fakes.host.create({ machine_id: "one", restart }, fakes.trace());
  return fakes;
}

async function die(fakes: FakeHost, vmmLog = ""): Promise<void> {
  fakes.storage.vmmLogTail = vmmLog;
  for (const jail of fakes.vmms.jails.values()) jail.die();
  await until(() => fakes.host.getMachine(one).ended !== undefined, "its end is recorded");
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt += 1, await sleep(10)) if (condition()) return;
  assert.fail(`it never came to be that ${what}`);
}

const CASES: readonly (readonly [Restart, "failed" | "stopped", boolean])[] = [
  ["never", "failed", false],
  ["on-failure", "failed", true],
  ["on-failure", "stopped", false],
  ["always", "failed", true],
  ["always", "stopped", true],
];
for (const [restart, phase, again] of CASES) {
  test(`restart: ${restart} of a machine that ended ${phase}: ${again ? "it runs again" : "it stays so"}`, async () => {
    await using fakes = await withMachine(restart);
    await die(fakes, phase === "stopped" ? CLEAN : "");
    const ended = fakes.host.getMachine(one);
    assert.equal(ended.phase, phase);
    assert.equal(ended.restart, restart);
    assert.equal(ended.restarts?.next_at !== undefined, again);
    if (!again) return;
    await until(() => fakes.host.getMachine(one).phase === "running", "it runs again");
    const { restarts, ended: how } = fakes.host.getMachine(one);
    assert.deepEqual([restarts, how], [{ count: 1 }, undefined]);
  });
}

test("a stop and a delete end it", async () => {
  for (const end of ["stop", "delete"] as const) {
    await using fakes = await withMachine("always");
    await die(fakes);
    await fakes.host[end](one, fakes.trace());
    await sleep(1300);
    assert.equal(fakes.vmms.jails.size, 0);
    if (end === "stop") assert.equal(fakes.host.getMachine(one).restarts, undefined);
  }
});

test("a machine that was stopped is not started again, though its policy is always", async () => {
  await using fakes = await withMachine("always");
  await fakes.host.stop(one, fakes.trace());
  await sleep(1200);
  assert.equal(fakes.host.getMachine(one).phase, "stopped");
});

test("a start that fails is tried again later, and what failed is not forgotten", async () => {
  await using fakes = await withMachine("on-failure");
  fakes.guests.everReady = false;
  await die(fakes);
  await until(() => fakes.host.getMachine(one).restarts?.count === 2, "it was tried once");
  const { phase, error, restarts } = fakes.host.getMachine(one);
  assert.equal(phase, "failed");
  assert.match(error ?? "", /it was killed/);
  const waitMs = Date.parse(restarts?.next_at ?? "") - Date.now();
  assert.ok(waitMs > 1000 && waitMs <= 2000, `${waitMs} ms`);
  fakes.guests.everReady = true;
  await until(() => fakes.host.getMachine(one).phase === "running", "it runs again");
});

test("a daemon that starts again goes on with it", async () => {
  const before = await withMachine("always");
  await die(before);
  await before.host.close();
  await using after = await restarted(before, undefined);
  await until(() => after.host.getMachine(one).phase === "running", "it runs again");
});

test("waits double from a second to a minute, and begin anew after a machine was well for ten minutes", () => {
  assert.deepEqual([1, 2, 3, 6, 7, 100].map(backOffMs), [1000, 2000, 4000, 32_000, 60_000, 60_000]);
  const record = { restart: "always", restarts: { count: 5 } } as const;
  const at = (started_at: string) =>
    nextRestart({ ...record, started_at } as never, "failed", "2026-01-01T12:00:00.000Z");
  assert.deepEqual(at("2026-01-01T11:50:00.000Z"), { count: 1, next_at: "2026-01-01T12:00:01.000Z" });
  assert.deepEqual(at("2026-01-01T11:50:01.000Z"), { count: 6, next_at: "2026-01-01T12:00:32.000Z" });
});

test("a restore and a fork take a policy, too, and no child has its source's", async () => {
  await using fakes = await withMachine("always");
  await fakes.host.snapshot(one, { snapshot_id: "s1" }, fakes.trace());
  const restored = await fakes.host.restore(
    snapshotId("s1"),
    { machine_id: "two", restart: "on-failure" },
    fakes.trace(),
  );
  const { machines } = await fakes.host.fork(one, { machine_id: "three", restart: "always" }, fakes.trace());
  const plain = await fakes.host.fork(one, { machine_id: "four" }, fakes.trace());
  assert.deepEqual(
    [restored.machine, ...machines, ...plain.machines].map(({ restart }) => restart),
    ["on-failure", "always", "never"],
  );
});

test("never is the same request as none, and another policy is another request", async () => {
  await using fakes = await withMachine("never");
  const again = await fakes.host.create({ machine_id: "one" }, fakes.trace());
  assert.equal(again.created, false);
  await assert.rejects(fakes.host.create({ machine_id: "one", restart: "always" }, fakes.trace()));
});
