import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { realPair } from "../support/real-run/pair.ts";
import { stubPair } from "../support/stub-vmm/build.ts";
import { makeTinyArtifact } from "../support/tiny-machine.ts";
import { inWorld, type World } from "../support/world.ts";

const TIMES = Number(process.env["SOAK"] ?? 1000);
const AT_ONCE = 4;
/** Pools, caches and the compiler settle first. */
const SETTLED_AFTER = Math.min(100, TIMES / 2);
const MOST_GROWTH_MIB = 64;
const SLACK = 6;

interface Weight {
  readonly descriptors: number;
  readonly resident_mib: number;
}

function weigh(world: World): Weight {
  const folder = `/proc/${world.daemonPid}`;
  const resident = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`${folder}/status`, "utf8"))?.[1];
  return {
    descriptors: readdirSync(`${folder}/fd`).length,
    resident_mib: Math.round(Number(resident) / 1024),
  };
}

test(`${TIMES} live restores and deletes leave the host as it was`, { timeout: 3_600_000 }, async (t) => {
  using artifact = await makeTinyArtifact();
  const stubs = await stubPair(artifact.dir);
  const env = {
    ...artifact.env,
    ...(realPair() === undefined
      ? { FIRECRACKER_BINARY_PATH: stubs.firecrackerPath, JAILER_BINARY_PATH: stubs.jailerPath }
      : {}),
  };
  await inWorld(
    async (world) => {
      await world.create("source", artifact.body);
      const taken = await world.post("/machines/source/snapshots", { snapshot_id: "s", memory: true });
      assert.equal(taken.status, 201, JSON.stringify(taken.body));
      let next = 1;
      let settled: Weight | undefined;
      const worker = async (): Promise<void> => {
        while (next <= TIMES) {
          const machine_id = `twin-${next}`;
          if (next === SETTLED_AFTER) settled = weigh(world);
          next += 1;
          const answer = await world.post("/snapshots/s/restore", { machine_id, ready: "started" });
          assert.equal(answer.status, 201, `${machine_id}: ${JSON.stringify(answer.body)}`);
          assert.equal((await world.delete(`/machines/${machine_id}`)).status, 204);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
      const ids = (await world.get("/machines")).body.machines.map(({ id }: Machine) => id);
      assert.deepEqual(ids, ["source"]);
      await world.assertMatchesState();
      const now = weigh(world);
      t.diagnostic(`the daemon settled at ${JSON.stringify(settled)} and ended with ${JSON.stringify(now)}`);
      assert.ok(settled !== undefined);
      assert.ok(now.descriptors <= settled.descriptors + SLACK, "descriptors grew");
      assert.ok(now.resident_mib <= settled.resident_mib + MOST_GROWTH_MIB, "memory grew");
    },
    { env },
  );
});
