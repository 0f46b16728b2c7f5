import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import { LogRounds } from "../../../src/host/bound-logs.ts";
import { makeContext } from "../../../src/host/context.ts";
import { systemClock } from "../../../src/system/clock.ts";
import { FakeGuests } from "../../support/fakes/guests.ts";
import { FakeNetwork } from "../../support/fakes/network.ts";
import { FakeState } from "../../support/fakes/state.ts";
import { FakeStorage } from "../../support/fakes/storage.ts";
import { FakeVmms } from "../../support/fakes/vmms.ts";

const MINUTE = 60_000;

/** Rounds over this many machines that run, and what was said about it. */
function patrol(machines: number) {
  const storage = new FakeStorage();
  const warnings: object[] = [];
  const log = { info() {}, error() {}, warn: (fields: object) => warnings.push(fields) };
  const rooms = {
    state: new FakeState(),
    network: new FakeNetwork(),
    guests: new FakeGuests(),
    vmms: new FakeVmms(),
    clock: systemClock,
  };
  const context = makeContext({ ...rooms, storage, log } as never, { memoryOvercommit: 1 } as never);
  for (let number = 1; number <= machines; number += 1)
    context.live.set(machineId(`m${number}`), {} as never);
  const bounded = () => storage.calls.filter((call) => call.startsWith("boundLogs"));
  return { rounds: new LogRounds(context), storage, context, warnings, bounded };
}

test("every running machine's logs are looked at once in a minute, however often it is time to think of it", async () => {
  const { rounds, bounded } = patrol(10);
  for (let at = 0; at <= 3 * MINUTE; at += 5000) await rounds.turn(at);
  assert.equal(bounded().length, 30);
  assert.equal(new Set(bounded()).size, 10);
});

test("a few machines are looked at at once, and no round begins in the middle of one", async () => {
  const { rounds, storage } = patrol(20);
  let now = 0;
  let most = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  storage.boundLogs = async () => {
    now += 1;
    most = Math.max(most, now);
    await promise;
    now -= 1;
  };
  await rounds.turn(0);
  const first = rounds.turn(MINUTE);
  await rounds.turn(2 * MINUTE);
  assert.equal(most, 4);
  resolve();
  await first;
  assert.equal(most, 4);
});

test("a machine whose logs cannot be bounded keeps no other from its turn", async () => {
  const { rounds, storage, warnings, context } = patrol(6);
  const calls: string[] = [];
  storage.boundLogs = (id) => {
    calls.push(id);
    if (id === "m2") context.live.delete(id);
    return id === "m1" || id === "m2" ? Promise.reject(new AppError("disk_full", "full")) : Promise.resolve();
  };
  await rounds.turn(0);
  await rounds.turn(MINUTE);
  assert.equal(calls.length, 6);
  assert.deepEqual(warnings, [{ machine_id: "m1", reason: "full" }]);
});
