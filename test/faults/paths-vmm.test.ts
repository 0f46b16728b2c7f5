import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { run } from "../../src/system/run.ts";
import { inStubWorld } from "../support/stub-world.ts";
import { vmmOf } from "../support/tiny-machine.ts";
import type { World } from "../support/world.ts";
import { Canary } from "./paths-canary.ts";
import { assertNotKept, bytesOf, Watched } from "./paths-watched.ts";
import { FULL } from "./seed.ts";

/** What a VMM that a guest took over does in its jail: paths-hostile-vmm.c. */
const DEEDS = [
  "links",
  "pipes",
  "folders",
  "names",
  "deep",
  "large",
  "save-links",
  "save-folders",
  "save-aside",
  "save-names",
  "save-later",
  "links,save-links,names,large",
  "folders,deep,save-folders",
] as const;

/** Each alone in the long form; in the short one those that do several at once. */
const CHOSEN = FULL ? DEEDS : DEEDS.filter((deeds) => deeds.includes(","));
async function buildHostile(folder: string): Promise<string> {
  const program = join(folder, "hostile-vmm");
  const source = join(import.meta.dirname, "paths-hostile-vmm.c");
  const flags = ["-D_GNU_SOURCE", "-O1", "-Wall", "-Wno-unused-result", "-static"];
  await run(["gcc", ...flags, "-o", program, source], { timeoutMs: 60_000 });
  return program;
}

async function assertArtifactsWhole(world: World, snapshot: string): Promise<void> {
  const { body } = await world.get(`/snapshots/${snapshot}`);
  for (const { id, sha256_hex } of body.snapshot.artifacts as { id: string; sha256_hex: string }[]) {
    const { status, bytes } = await bytesOf(world, `/snapshots/${snapshot}/artifacts/${id}`);
    assert.equal(status, 200);
    assert.equal(
      createHash("sha256").update(bytes).digest("hex"),
      sha256_hex,
      `${id} is not what was sealed`,
    );
  }
}

async function deedsDone(world: World, id: string): Promise<void> {
  const log = join(world.rootDir, "machines", id, "vmm.log");
  for (let attempt = 0; attempt < 200; attempt += 1, await sleep(20))
    if (readFileSync(log, "latin1").includes("deeds done")) return;
  throw new Error(`the VMM of ${id} did not do what it was told:\n${readFileSync(log, "latin1")}`);
}

test("a VMM that does what it can in its jail reaches nothing outside, and everything of it goes", async (t) => {
  using canary = new Canary();
  await inStubWorld(
    async (world, { body }) => {
      const watched = new Watched(world, canary);
      for (const [index, deeds] of CHOSEN.entries()) {
        await t.test(deeds, async () => {
          const id = `bad-${index}`;
          const machine = `/machines/${id}`;
          const boot_args = `hostile=${deeds} canary=${canary.path}`;
          const create = { machine_id: id, ...body, boot_args, track_dirty_pages: true };
          const made = await watched.ask("post", "/machines", create);
          await deedsDone(world, id);
          const saved = [201, "vmm_failed", "wrong_phase", "disk_full"];
          const memory = await watched.ask(
            "post",
            `${machine}/snapshots`,
            { snapshot_id: `${id}-m`, memory: true },
            saved,
          );
          if (/save-(links|folders|aside|names)/.test(deeds)) assert.equal(memory.body.code, "vmm_failed");
          if (memory.status === 201) {
            await watched.ask("post", `${machine}/pause`, undefined, saved.concat(200));
            await watched.ask("post", `${machine}/resume`, undefined, saved.concat(200));
            await assertArtifactsWhole(world, `${id}-m`);
            const woken = { machine_id: `${id}-w`, ready: "started" };
            await watched.ask("post", `/snapshots/${id}-m/restore`, woken, [201, "vmm_failed"]);
          }
          const disk = await watched.ask("post", `${machine}/snapshots`, { snapshot_id: `${id}-d` });
          assert.equal(disk.status, 201);
          await watched.ask("get", machine);
          await watched.ask("get", "/audit");
          await watched.ask("post", "/audit/repair");
          canary.assertUntouched();

          await world.endDaemon("SIGKILL");
          await world.startDaemon();
          await watched.ask("get", machine);
          await watched.ask("post", `${machine}/stop`);
          await watched.ask("post", `${machine}/start`);
          await deedsDone(world, id);
          process.kill(vmmOf((await world.get(machine)).body.machine as Machine).pid, "SIGKILL");
          for (let attempt = 0; attempt < 200; attempt += 1, await sleep(20))
            if ((await watched.ask("get", machine)).body.machine.phase === "failed") break;
          await watched.ask("post", `${machine}/start`);
          for (const path of [machine, `/machines/${id}-w`, `/snapshots/${id}-m`, `/snapshots/${id}-d`])
            await watched.ask("delete", path);
          canary.assertUntouched();
          await assertNotKept(world, canary);
          await world.assertMatchesState();
          await world.assertAuditClean();
          assert.equal(made.status, 201);
        });
      }
    },
    { vmm: buildHostile, env: { FIRECRACKER_HOST_STOP_TIMEOUT: "100ms" } },
  );
  canary.assertUntouched();
  canary.assertReadsShow();
});
