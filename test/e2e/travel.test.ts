import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { assertCountsOn, countIn, startCounter } from "../support/counter.ts";
import { describeFar, type FarArtifact, uploadPlan } from "../support/far-snapshot.ts";
import { startFarStore } from "../support/far-store.ts";
import { inWorld, type World } from "../support/world.ts";

const PART_BYTES = 24 * 1024 * 1024;

/** Nothing half-made lies about. */
const staged = (world: World): string[] => readdirSync(join(world.rootDir, "staging"));

test("a frozen guest travels: two daemons, a store between them that fails now and then, and the guest wakes elsewhere", async (t) => {
  await inWorld(async (here) => {
    await using store = await startFarStore(here.playground.host);
    await inWorld(
      async (there) => {
        const source = await here.create("source", { memory_mib: 128 });
        await startCounter(here, source);
        await here.ssh(source, "echo remember > /run/note");
        const taken = await here.post("/machines/source/snapshots", { snapshot_id: "s", memory: true });
        assert.equal(taken.status, 201, JSON.stringify(taken.body));
        const artifacts = taken.body.artifacts as FarArtifact[];
        const idOf = (kind: string): string => artifacts.find((artifact) => artifact.kind === kind)?.id ?? "";
        const plan = uploadPlan(artifacts, store.url, PART_BYTES);
        const guest_config = { authorized_keys: [there.key.publicLine] };
        const restore = async (machine_id: string, snapshot: object, more: object = {}) =>
          there.post("/snapshots/s/restore", { machine_id, snapshot, guest_config, ...more });

        await t.test("an upload that the store refuses for good fails with the part's number", async () => {
          await store.trouble(`PUT /parts/${idOf("memory")}/2`, { times: 1, status: 403 });
          const refused = await here.post("/snapshots/s/upload", plan);
          assert.deepEqual(
            [refused.status, refused.body.code],
            [502, "upload_failed"],
            JSON.stringify(refused.body),
          );
          assert.equal(refused.body.details.part_number, 2);
          assert.doesNotMatch(JSON.stringify(refused.body), /secret/, "a signature is nobody's business");
        });

        await t.test("one that fails in between is tried again, and every part is there", async () => {
          await store.trouble(`PUT /parts/${idOf("disk")}/1`, { times: 1, after: 5_000_000 });
          await store.trouble(`PUT /parts/${idOf("memory")}/1`, { times: 1, status: 503 });
          const uploaded = await here.post("/snapshots/s/upload", plan);
          assert.equal(uploaded.status, 200, JSON.stringify(uploaded.body));
          const told = uploaded.body.artifacts.map(({ artifact_id }: { artifact_id: string }) => artifact_id);
          assert.deepEqual(
            told,
            artifacts.map(({ id }) => id),
          );
          for (const { completed_parts } of uploaded.body.artifacts)
            for (const { etag } of completed_parts) assert.match(etag, /[0-9a-f]{32}/);
        });

        const snapshot = await describeFar(here, "s", store.url);
        await t.test("a host without the image says which, and keeps nothing", async () => {
          const refused = await restore("woken", snapshot);
          assert.deepEqual(
            [refused.status, refused.body.code],
            [422, "image_invalid"],
            JSON.stringify(refused.body),
          );
          await there.create("any", { memory_mib: 128, ready: "started" });
          assert.equal((await there.delete("/machines/any")).status, 204);
          assert.deepEqual(staged(there), []);
        });

        await t.test("a byte that is another is found, and nothing is kept", async () => {
          await store.trouble(`GET /objects/${idOf("memory")}`, { times: 10, wrongByte: true });
          const refused = await restore("woken", snapshot);
          assert.equal(refused.status, 422, JSON.stringify(refused.body));
          assert.deepEqual(staged(there), []);
          assert.equal((await there.get("/snapshots/s")).status, 404);
          assert.deepEqual((await there.get("/machines")).body.machines, []);
          await there.assertMatchesState();
          await store.trouble(`GET /objects/${idOf("memory")}`, { times: 0 });
        });

        await t.test(
          "it wakes on the other host although downloads break off, as another machine",
          async () => {
            await store.trouble(`GET /objects/${idOf("disk")}`, { times: 1, after: 3_000_000 });
            const before = await countIn(here, source);
            const answer = await restore("woken", snapshot);
            assert.equal(answer.status, 201, JSON.stringify(answer.body));
            const woken = answer.body.machine as Machine;
            assert.ok(
              woken.receipt?.every(({ done }) => done),
              JSON.stringify(woken.receipt),
            );
            assert.equal(await there.print(woken, "cat /run/note; hostname"), "remember\nwoken");
            assert.notEqual(woken.guest_ssh_host_public_key, source.guest_ssh_host_public_key);
            const count = await countIn(there, woken);
            assert.ok(count > 0 && count <= before + 2000, `${count}, the source was at ${before}`);
            await assertCountsOn(there, woken);
            await assertCountsOn(here, source);
            assert.equal((await there.get("/snapshots/s/compatibility")).body.restorable, "live");
            await there.assertMatchesState();
            await here.assertMatchesState();
          },
        );

        await t.test("once there, it needs no store", async () => {
          const again = await there.post("/snapshots/s/restore", {
            machine_id: "again",
            guest_config,
            memory: false,
          });
          assert.equal(again.status, 201, JSON.stringify(again.body));
          assert.equal(await there.print(again.body.machine, "hostname"), "again");
          // The world looks for snapshots by their machines, and this one's lives elsewhere.
          assert.equal((await there.delete("/snapshots/s")).status, 204);
        });
      },
      { beside: here },
    );
  });
});
