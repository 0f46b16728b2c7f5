import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { assertCountsOn, startCounter } from "../support/counter.ts";
import { makeSmallDisk } from "../support/small-disk.ts";
import { inWorld, type World } from "../support/world.ts";

const MIB = 1024 * 1024;

const snapshots = async (world: World): Promise<string[]> =>
  (await world.get("/machines/source/snapshots")).body.snapshots.map(({ id }: { id: string }) => id);
const machines = async (world: World): Promise<string[]> =>
  (await world.get("/machines")).body.machines.map(({ id }: Machine) => id).sort();

test("a disk that is full, or fills up meanwhile, fails a snapshot and costs the machine nothing", async () => {
  await using disk = await makeSmallDisk(2600 * MIB, ["mkfs.ext4", "-q", "-m", "0"]);
  await inWorld(
    async (world) => {
      const source = await world.create("source", { memory_mib: 192 });
      await startCounter(world, source);
      // Room for nothing; and for the memory but not for the disk beside it.
      for (const free of [16, 230]) {
        await disk.fillUp(free * MIB);
        const full = await world.post("/machines/source/snapshots", { snapshot_id: "s", memory: true });
        assert.deepEqual([full.status, full.body.code], [507, "disk_full"], JSON.stringify(full.body));
        disk.release();
        assert.deepEqual(await snapshots(world), []);
        assert.deepEqual(readdirSync(join(world.rootDir, "staging")), []);
        await assertCountsOn(world, source);
        await world.assertMatchesState();
      }
      const taken = await world.post("/machines/source/snapshots", { snapshot_id: "s", memory: true });
      assert.equal(taken.status, 201, JSON.stringify(taken.body));
      await disk.fillUp(16 * MIB);
      const restored = await world.post("/snapshots/s/restore", { machine_id: "twin" });
      assert.deepEqual(
        [restored.status, restored.body.code],
        [507, "disk_full"],
        JSON.stringify(restored.body),
      );
      disk.release();
      assert.deepEqual(await machines(world), ["source"]);
      await world.assertMatchesState();
    },
    { rootDir: disk.rootDir, env: { FIRECRACKER_HOST_DISK_CLONE_MODE: "copy" } },
  );
});

/** Kills the daemon while `work` is under way, at `afterMs`; returns once the next one serves. */
async function killDuring(world: World, work: Promise<unknown>, afterMs: number): Promise<void> {
  const ended = work.catch(() => undefined);
  await sleep(afterMs);
  await world.endDaemon("SIGKILL");
  await ended;
  await world.startDaemon();
}

/** Moments that lie in the early, the middle and the late part of what takes `wholeMs` when nothing comes in between. */
const moments = (wholeMs: number): number[] => [0.1, 0.45, 0.8].map((share) => Math.round(share * wholeMs));

test("a daemon killed in a snapshot with memory, a live restore or a fork leaves it done or undone", async (t: TestContext) => {
  await inWorld(async (world) => {
    const source = await world.create("source", { memory_mib: 128 });
    await startCounter(world, source);
    const timed = async (work: () => Promise<{ status: number; body: unknown }>): Promise<number> => {
      const started = performance.now();
      const answer = await work();
      assert.equal(answer.status, 201, JSON.stringify(answer.body));
      return performance.now() - started;
    };
    const snapshotMs = await timed(() =>
      world.post("/machines/source/snapshots", { snapshot_id: "s", memory: true }),
    );
    for (const afterMs of moments(snapshotMs)) {
      await t.test(`snapshot, after ${afterMs} ms`, async () => {
        await killDuring(
          world,
          world.post("/machines/source/snapshots", { snapshot_id: "cut", memory: true }),
          afterMs,
        );
        assert.ok(
          ["s", "cut,s"].includes((await snapshots(world)).sort().join()),
          (await snapshots(world)).join(),
        );
        await assertCountsOn(world, source);
        await world.assertMatchesState();
        await world.delete("/snapshots/cut");
      });
    }
    const restore = { machine_id: "twin", guest_config: { authorized_keys: [world.key.publicLine] } };
    const restoreMs = await timed(() => world.post("/snapshots/s/restore", restore));
    assert.equal((await world.delete("/machines/twin")).status, 204);
    for (const afterMs of moments(restoreMs)) {
      await t.test(`restore, after ${afterMs} ms`, async () => {
        await killDuring(world, world.post("/snapshots/s/restore", restore), afterMs);
        const found = await machines(world);
        assert.ok(["source", "source,twin"].includes(found.join()), found.join());
        await world.assertMatchesState();
        await world.delete("/machines/twin");
      });
    }
    const fork = { count: 2, id_prefix: "kid-", guest_config: restore.guest_config };
    for (const afterMs of moments(snapshotMs + restoreMs)) {
      await t.test(`fork, after ${afterMs} ms`, async () => {
        await killDuring(world, world.post("/machines/source/fork", fork), afterMs);
        const found = await machines(world);
        assert.ok(["source", "kid-1,kid-2,source"].includes(found.join()), found.join());
        await assertCountsOn(world, source);
        await world.assertMatchesState();
        for (const id of ["kid-1", "kid-2"]) await world.delete(`/machines/${id}`);
      });
    }
  });
});

test("a VMM that is killed in its snapshot fails it, and leaves a failed machine and nothing else", async () => {
  await inWorld(async (world) => {
    const source = await world.create("source", { memory_mib: 256 });
    await world.ssh(source, "head -c 30000000 /dev/urandom > /run/noise");
    const asked = world.post("/machines/source/snapshots", { snapshot_id: "cut", memory: true });
    const staged = join(world.rootDir, "staging/snapshot-cut");
    for (let attempt = 0; !hasMemory(staged); attempt += 1) {
      assert.ok(attempt < 3000, "the memory was never staged");
      await sleep(5);
    }
    const pid = source.vmm?.pid;
    assert.ok(pid !== undefined);
    process.kill(pid, "SIGKILL");
    const answer = await asked;
    assert.notEqual(answer.status, 201, JSON.stringify(answer.body));
    assert.deepEqual(await snapshots(world), []);
    for (
      let attempt = 0;
      (await world.get("/machines/source")).body.machine.phase !== "failed";
      attempt += 1
    ) {
      assert.ok(attempt < 200, "the machine did not fail");
      await sleep(100);
    }
    await world.assertMatchesState();
    assert.equal((await world.post("/machines/source/start")).status, 200, "its disk boots");
  });
});

function hasMemory(folder: string): boolean {
  try {
    return readdirSync(folder).some((name) => name.startsWith("memory"));
  } catch {
    return false;
  }
}
