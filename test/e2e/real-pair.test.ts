import assert from "node:assert/strict";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { identifyProcess } from "../../src/system/process.ts";
import { assertConfined } from "../support/confinement.ts";
import { NEEDS_REAL_PAIR, realPair } from "../support/real-run/pair.ts";
import { assertCounting, machineOf, makeTinyArtifact, untilFailed, vmmOf } from "../support/tiny-machine.ts";
import { inWorld, type World } from "../support/world.ts";

async function assertRuns(world: World, machine: Machine): Promise<void> {
  assert.equal(machine.phase, "running");
  await assertConfined(world.rootDir, machine);
  await assertCounting(world, machine.id);
}

const skip = realPair() === undefined && NEEDS_REAL_PAIR;

test("the real pair: a machine's whole life, its copies, a daemon that comes and goes, and a VMM that is killed", {
  skip,
}, async (t) => {
  using artifact = await makeTinyArtifact();
  await inWorld(
    async (world) => {
      const restore = async (machine_id: string): Promise<Machine> => {
        const answer = await world.post("/snapshots/s/restore", { machine_id, ready: "started" });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        return answer.body.machine as Machine;
      };

      await t.test("a machine is made, confined, and seen", async () => {
        const { vmm } = (await world.get("/health")).body;
        assert.equal(vmm.name, "firecracker", JSON.stringify(vmm));
        const source = await world.create("source", artifact.body);
        await assertRuns(world, source);
        assert.deepEqual((await world.get("/machines")).body.machines, [source]);
        await world.assertMatchesState();
        await world.assertAuditClean();
      });

      await t.test("two machines at once go on from a snapshot of its disk, while it runs on", async () => {
        const answer = await world.post("/machines/source/snapshots", { snapshot_id: "s" });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        // Nobody in this guest could have synced anything.
        assert.equal(answer.body.snapshot.consistency, "crash");
        const [left, right] = await Promise.all([restore("left"), restore("right")]);
        const source = await machineOf(world, "source");
        for (const machine of [source, left, right]) await assertRuns(world, machine);
        for (const field of ["pid", "uid", "gid", "jail_id", "netns"] as const)
          assert.equal(new Set([source, left, right].map((machine) => vmmOf(machine)[field])).size, 3, field);
        await world.assertMatchesState();
      });

      await t.test(
        "a machine that is stopped keeps its disk and loses its VMM; deleted, it is gone",
        async () => {
          const { pid } = vmmOf(await machineOf(world, "right"));
          assert.equal((await world.post("/machines/right/stop")).status, 204);
          assert.equal(identifyProcess(pid), undefined);
          const right = await machineOf(world, "right");
          assert.deepEqual([right.phase, right.vmm, right.runtime_host], ["stopped", undefined, undefined]);
          await world.assertMatchesState();
          assert.equal((await world.delete("/machines/right")).status, 204);
          assert.equal((await world.get("/machines/right")).status, 404);
          await world.assertMatchesState();
        },
      );

      for (const signal of ["SIGTERM", "SIGKILL"] as const)
        await t.test(`after a ${signal} the next daemon takes the machines over as they run`, async () => {
          const before = (await world.get("/machines")).body.machines as Machine[];
          assert.deepEqual(before.map(({ id }) => id).sort(), ["left", "source"]);
          assert.equal(await world.endDaemon(signal), signal === "SIGTERM" ? 0 : null);
          for (const { id } of before) await assertCounting(world, id);
          await world.startDaemon();
          assert.deepEqual((await world.get("/machines")).body.machines, before);
          for (const machine of before) await assertRuns(world, machine);
          await world.assertMatchesState();
        });

      await t.test(
        "a VMM that is killed from outside leaves a failed machine, and harms no other",
        async () => {
          const { pid } = vmmOf(await machineOf(world, "left"));
          process.kill(pid, "SIGKILL");
          const left = await untilFailed(world, "left");
          assert.match(left.error ?? "", /ended unexpectedly/);
          assert.equal(left.vmm, undefined);
          await assertRuns(world, await machineOf(world, "source"));
          await world.assertMatchesState();
        },
      );

      await t.test("what was taken over can be stopped and deleted", async () => {
        assert.equal((await world.post("/machines/source/stop")).status, 204);
        for (const id of ["source", "left"])
          assert.equal((await world.delete(`/machines/${id}`)).status, 204);
        assert.equal((await world.delete("/snapshots/s")).status, 204);
        assert.deepEqual((await world.get("/machines")).body.machines, []);
        await world.assertMatchesState();
      });
    },
    { env: artifact.env },
  );
});
