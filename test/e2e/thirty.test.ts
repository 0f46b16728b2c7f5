import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { assertCountsOn, startCounter } from "../support/counter.ts";
import { inWorld, type World } from "../support/world.ts";

const TIMES = 30;
/** Pools of threads, caches and sockets settle within the first rounds. */
const SETTLED_AFTER = 5;
/** Descriptors that come and go: a look at /proc, a connection of the test itself. */
const SLACK = 4;

const descriptors = (world: World): number => {
  // The launcher replaces itself by Node: the pid is the daemon's own.
  return readdirSync(`/proc/${world.daemonPid}/fd`).length;
};

const residentMib = (world: World): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${world.daemonPid}/status`, "utf8"))?.[1]) / 1024;

test(`${TIMES} live restores and deletes in a row leave the host as it was`, async (t) => {
  await inWorld(async (world) => {
    const source = await world.create("source", { memory_mib: 128 });
    await startCounter(world, source);
    const taken = await world.post("/machines/source/snapshots", { snapshot_id: "s", memory: true });
    assert.equal(taken.status, 201, JSON.stringify(taken.body));
    let settled = 0;
    for (let round = 1; round <= TIMES; round += 1) {
      // Every other is made unique, which is what takes the time here, and the last is logged in to.
      const ready = round % 2 === 0 ? "ssh" : "started";
      const answer = await world.post("/snapshots/s/restore", {
        machine_id: `twin-${round}`,
        ready,
        guest_config: { authorized_keys: [world.key.publicLine] },
      });
      assert.equal(answer.status, 201, `round ${round}: ${JSON.stringify(answer.body)}`);
      if (round === TIMES) await assertCountsOn(world, answer.body.machine);
      assert.equal((await world.delete(`/machines/twin-${round}`)).status, 204);
      if (round === SETTLED_AFTER) settled = descriptors(world);
    }
    await world.assertMatchesState();
    const now = descriptors(world);
    t.diagnostic(`descriptors: ${settled} -> ${now}; resident: ${Math.round(residentMib(world))} MiB`);
    assert.ok(now <= settled + SLACK, `the daemon has ${now} descriptors, and had ${settled}`);
    await assertCountsOn(world, source);
  });
});
