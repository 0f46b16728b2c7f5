import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { identifyProcess } from "../../src/system/process.ts";
import { run } from "../../src/system/run.ts";
import { tinyGuest } from "../conformance/support/tiny-guest.ts";
import { assertConfined } from "../support/confinement.ts";
import { NEEDS_REAL_PAIR, realPair } from "../support/real-run/pair.ts";
import { inWorld, type World } from "../support/world.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 16 * MIB;
const MEMORY_MIB = 64;
/** The tiny guest listens to no key press, so that each stop waits as long as it may. */
const STOP_TIMEOUT = "1s";

/** The tiny guest and a small root disk, as files that a machine is made from. They go with the scope. */
async function makeArtifact(): Promise<{ dir: string; urls: Record<string, string> } & Disposable> {
  const dir = mkdtempSync("/var/tmp/ch-tiny-");
  const remove = (): void => rmSync(dir, { recursive: true, force: true });
  try {
    const [kernel, rootfs] = [join(dir, "kernel.elf"), join(dir, "root.ext4")];
    await copyFile(tinyGuest(), kernel);
    await run(["truncate", "-s", String(DISK_BYTES), rootfs]);
    await run(["mkfs.ext4", "-q", "-F", rootfs]);
    const urls = { kernel_image_url: `file://${kernel}`, rootfs_url: `file://${rootfs}` };
    return { dir, urls, [Symbol.dispose]: remove };
  } catch (error) {
    remove();
    throw error;
  }
}

function vmmOf(machine: Machine): NonNullable<Machine["vmm"]> {
  assert.ok(machine.vmm !== undefined, `${machine.id} has no VMM`);
  return machine.vmm;
}

async function machineOf(world: World, id: string): Promise<Machine> {
  const { status, body } = await world.get(`/machines/${id}`);
  assert.equal(status, 200, JSON.stringify(body));
  return body.machine as Machine;
}

/** The guest counts on its console, in the file that the daemon keeps; returns once it counted on. */
async function assertCounting(world: World, id: string): Promise<void> {
  const ticks = async (): Promise<number> => {
    const { stdout } = await run(
      ["grep", "-c", "^tick ", join(world.rootDir, "machines", id, "console.log")],
      {
        okCodes: [0, 1],
      },
    );
    return Number(stdout);
  };
  const before = await ticks();
  for (let attempt = 0; attempt < 100; attempt += 1) {
    if ((await ticks()) > before) return;
    await sleep(100);
  }
  throw new Error(`the guest of ${id} does not count on from ${before}`);
}

async function assertRuns(world: World, machine: Machine): Promise<void> {
  assert.equal(machine.phase, "running");
  await assertConfined(world.rootDir, machine);
  await assertCounting(world, machine.id);
}

const skip = realPair() === undefined && NEEDS_REAL_PAIR;

test("the real pair: a machine's whole life, its copies, a daemon that comes and goes, and a VMM that is killed", {
  skip,
}, async (t) => {
  using artifact = await makeArtifact();
  const env = {
    FIRECRACKER_HOST_FILE_URL_DIRS: artifact.dir,
    FIRECRACKER_HOST_STOP_TIMEOUT: STOP_TIMEOUT,
  };
  await inWorld(
    async (world) => {
      const tiny = { memory_mib: MEMORY_MIB, ready: "started", artifact: artifact.urls };
      const restore = async (machine_id: string): Promise<Machine> => {
        const answer = await world.post("/snapshots/s/restore", { machine_id, ready: "started" });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        return answer.body.machine as Machine;
      };

      await t.test("a machine is made, confined, and seen", async () => {
        const { vmm } = (await world.get("/health")).body;
        assert.equal(vmm.name, "firecracker", JSON.stringify(vmm));
        const source = await world.create("source", tiny);
        await assertRuns(world, source);
        assert.deepEqual((await world.get("/machines")).body.machines, [source]);
        await world.assertMatchesState();
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
    { env },
  );
});

async function untilFailed(world: World, id: string): Promise<Machine> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const machine = await machineOf(world, id);
    if (machine.phase === "failed") return machine;
    await sleep(100);
  }
  throw new Error(`machine ${id} did not fail`);
}
