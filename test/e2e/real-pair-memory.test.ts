import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { assertConfined } from "../support/confinement.ts";
import { NEEDS_REAL_PAIR, realPair } from "../support/real-run/pair.ts";
import { assertCounting, machineOf, makeTinyArtifact, untilFailed, vmmOf } from "../support/tiny-machine.ts";
import { inWorld, type World } from "../support/world.ts";

const MEMORY_MIB = 64;
const skip = realPair() === undefined && NEEDS_REAL_PAIR;

async function assertRuns(world: World, machine: Machine): Promise<void> {
  assert.equal(machine.phase, "running");
  await assertConfined(world.rootDir, machine);
  await assertCounting(world, machine.id);
}

/** The first tick that the guest of a machine printed: a woken one goes on in the middle. */
function firstTick(world: World, id: string): number {
  const text = readFileSync(join(world.rootDir, "machines", id, "console.log"), "latin1");
  return Number(/^tick (\d+)$/m.exec(text)?.[1]);
}

/** Kibibytes of a VMM's memory that come from the snapshot's file: resident, and shared with others. */
function mapped(pid: number): { resident: number; shared: number } {
  const smaps = readFileSync(`/proc/${pid}/smaps`, "utf8");
  const blocks = smaps
    .split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
    .filter((block) => /^\S+ \S+ .*memory/.test(block.split("\n")[0] ?? ""));
  assert.ok(blocks.length > 0, "the snapshot's memory file is not mapped");
  const sum = (field: RegExp): number =>
    blocks.reduce((total, block) => total + Number(field.exec(block)?.[1] ?? 0), 0);
  return {
    resident: sum(/^Rss: +(\d+) kB/m),
    shared: sum(/^Shared_Clean: +(\d+) kB/m) + sum(/^Shared_Dirty: +(\d+) kB/m),
  };
}

test("the real pair: a machine is frozen with its memory and wakes many times over", { skip }, async (t) => {
  using artifact = await makeTinyArtifact(MEMORY_MIB);
  await inWorld(
    async (world) => {
      const restore = async (snapshot: string, machine_id: string): Promise<Machine> => {
        const answer = await world.post(`/snapshots/${snapshot}/restore`, { machine_id, ready: "started" });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        return answer.body.machine as Machine;
      };
      const snapshot = async (snapshot_id: string, memory: string | boolean): Promise<void> => {
        const answer = await world.post("/machines/source/snapshots", { snapshot_id, memory });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        t.diagnostic(`${snapshot_id}: paused for ${answer.body.snapshot.paused_ms} ms`);
      };
      let source = await world.create("source", { ...artifact.body, track_dirty_pages: true });

      await t.test("a snapshot with memory, and the verdict on it", async () => {
        await assertRuns(world, source);
        const tooEarly = await world.post("/machines/source/snapshots", { snapshot_id: "d", memory: "diff" });
        assert.deepEqual(
          [tooEarly.status, tooEarly.body.code],
          [422, "no_memory_base"],
          JSON.stringify(tooEarly.body),
        );
        await snapshot("full", true);
        const { body } = await world.get("/snapshots/full/compatibility");
        assert.deepEqual(body, { snapshot_id: "full", restorable: "live", reasons: [] });
        await assertRuns(world, source);
        await world.assertMatchesState();
      });

      await t.test("two wake at once where the source stood, and map the one memory file", async () => {
        const twins = await Promise.all(["left", "right"].map((id) => restore("full", id)));
        for (const twin of twins) {
          await assertRuns(world, twin);
          assert.ok(firstTick(world, twin.id) > 0, "it goes on in the middle");
          const { resident, shared } = mapped(vmmOf(twin).pid);
          t.diagnostic(`${twin.id}: ${resident} KiB of ${MEMORY_MIB} MiB resident, ${shared} shared`);
          assert.ok(resident < (MEMORY_MIB * 1024) / 4, `${resident} KiB were copied`);
          assert.ok(shared > 0, "nothing is shared");
          assert.ok(
            twin.receipt !== undefined && twin.receipt.every(({ done }) => !done),
            JSON.stringify(twin.receipt),
          );
        }
        await world.assertMatchesState();
      });

      await t.test("a diff stands on it, and stands alone once it is deleted", async () => {
        await snapshot("diff", "diff");
        assert.equal((await world.delete("/snapshots/full")).status, 204);
        await snapshot("second-diff", "diff");
        assert.equal((await world.delete("/snapshots/diff")).status, 204);
        const late = await restore("second-diff", "late");
        await assertRuns(world, late);
        assert.ok(firstTick(world, "late") > firstTick(world, "left"), "it is of a later instant");
        await world.assertMatchesState();
      });

      await t.test("a fork of three, the source running on", async () => {
        const answer = await world.post("/machines/source/fork", {
          count: 3,
          id_prefix: "kid-",
          ready: "started",
        });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        for (const kid of answer.body.machines as Machine[]) await assertRuns(world, kid);
        await assertRuns(world, source);
        assert.deepEqual(readdirSync(join(world.rootDir, "snapshots")), ["second-diff"]);
        await world.assertMatchesState();
        for (const { id } of answer.body.machines)
          assert.equal((await world.delete(`/machines/${id}`)).status, 204);
      });

      await t.test(
        "a woken machine is paused, resumed, stopped, started, and its disk grows while it runs",
        async () => {
          for (const turn of ["pause", "resume"])
            assert.equal((await world.post(`/machines/left/${turn}`)).status, 200);
          await assertCounting(world, "left");
          const before = await machineOf(world, "left");
          const grown = await world.post("/machines/left/resize", {
            storage_bytes: before.storage_bytes + 4096 * 1024,
          });
          assert.equal(grown.status, 200, JSON.stringify(grown.body));
          assert.equal(grown.body.machine.storage_bytes, before.storage_bytes + 4096 * 1024);
          assert.equal((await world.post("/machines/left/stop")).status, 204);
          const started = await world.post("/machines/left/start");
          assert.equal(started.status, 200, JSON.stringify(started.body));
          await assertRuns(world, started.body.machine);
          await world.assertMatchesState();
        },
      );

      await t.test(
        "the next daemon takes woken machines over; a VMM that is killed leaves a failed one",
        async () => {
          const before = (await world.get("/machines")).body.machines as Machine[];
          await world.endDaemon("SIGKILL");
          await world.startDaemon();
          assert.deepEqual((await world.get("/machines")).body.machines, before);
          for (const machine of before) await assertRuns(world, machine);
          process.kill(vmmOf(await machineOf(world, "right")).pid, "SIGKILL");
          assert.match((await untilFailed(world, "right")).error ?? "", /ended unexpectedly/);
          await world.assertMatchesState();
        },
      );

      await t.test("after a stop there is no base for a diff, and a full one makes another", async () => {
        assert.equal((await world.post("/machines/source/stop")).status, 204);
        source = (await world.post("/machines/source/start")).body.machine;
        const refused = await world.post("/machines/source/snapshots", { snapshot_id: "d", memory: "diff" });
        assert.deepEqual([refused.status, refused.body.code], [422, "no_memory_base"]);
        await snapshot("again", "full");
        await snapshot("again-diff", "diff");
        await world.assertMatchesState();
      });
    },
    { env: artifact.env },
  );
});
