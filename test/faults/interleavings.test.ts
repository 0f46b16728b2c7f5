import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import type { AuditItem } from "../../src/contract/audit.ts";
import type { Machine } from "../../src/contract/machine.ts";
import type { Answer } from "../support/request.ts";
import { inStubWorld } from "../support/stub-world.ts";
import type { World } from "../support/world.ts";
import {
  after,
  type Held,
  MACHINES,
  phaseOf,
  short,
  SNAPSHOTS,
  type Step,
  steps,
} from "./interleavings-model.ts";
import { noOrder, type Seen } from "./interleavings-order.ts";
import { FULL, seeded } from "./seed.ts";

const RUNS = FULL ? 200 : 6;
function send(world: World, create: object, step: Step, signal?: AbortSignal): Promise<Answer> {
  const { machine, snapshot, memory } = step;
  switch (step.act) {
    case "create":
      return world.post("/machines", { machine_id: machine, ...create }, signal);
    case "stop":
    case "start":
    case "pause":
    case "resume":
      return world.post(`/machines/${machine}/${step.act}`, undefined, signal);
    case "delete":
      return world.delete(`/machines/${machine}`);
    case "snapshot":
      return world.post(`/machines/${machine}/snapshots`, { snapshot_id: snapshot, memory }, signal);
    case "restore":
      return world.post(
        `/snapshots/${snapshot}/restore`,
        { machine_id: machine, memory, ready: "started" },
        signal,
      );
    case "delete snapshot":
      return world.delete(`/snapshots/${snapshot}`);
    case "list":
      return world.get("/machines");
  }
}

/** Waits until nothing is under way any more, of hung-up clients too: what waits for a lock waits for one that is under way. */
async function settled(world: World): Promise<void> {
  let quiet = 0;
  for (let attempt = 0; quiet < 3; attempt += 1) {
    assert.ok(attempt < 600, "operations do not come to their end");
    const items = (await world.get("/audit")).body.items as AuditItem[];
    quiet = items.some(({ resource }) => resource === "operation") ? 0 : quiet + 1;
    await sleep(50);
  }
}

/** What is there, as reads that come after everything else. */
async function lastReads(world: World, asked: number): Promise<Seen<Held>[]> {
  const reads: Seen<Held>[] = [];
  for (const id of MACHINES) {
    const { status, body } = await world.get(`/machines/${id}`);
    const phase = status === 404 ? undefined : phaseOf(body.machine);
    const what = `at last ${id} is ${phase ?? "gone"}`;
    reads.push({
      what,
      asked,
      answered: Infinity,
      after: (held) => (held.machines[id]?.phase === phase ? [held] : []),
    });
  }
  for (const id of SNAPSHOTS) {
    const { status, body } = await world.get(`/snapshots/${id}`);
    const memory = status === 404 ? undefined : body.snapshot.memory !== "none";
    const what = `at last snapshot ${id} is ${status === 404 ? "gone" : "there"}`;
    reads.push({
      what,
      asked,
      answered: Infinity,
      after: (held) => (held.snapshots[id]?.memory === memory ? [held] : []),
    });
  }
  return reads;
}

/** Plays the steps, each at its time, and returns what their clients saw. */
async function play(world: World, create: object, script: readonly Step[]): Promise<Seen<Held>[]> {
  const under: Promise<Omit<Seen<Held>, "answered"> & { readonly answered: number | undefined }>[] = [];
  for (const step of script) {
    if (step.gapMs > 0) await sleep(step.gapMs);
    const isCreating = !["delete", "delete snapshot", "list"].includes(step.act);
    const signal =
      step.hangUpMs === undefined || !isCreating ? undefined : AbortSignal.timeout(step.hangUpMs);
    under.push(
      (async () => {
        const asked = performance.now();
        const answer = await send(world, create, step, signal).catch((error: unknown) => {
          if (signal?.aborted === true) return undefined;
          throw error;
        });
        const answered = performance.now();
        const said =
          answer === undefined
            ? "hung up"
            : `${short(answer)}${step.act === "list" ? ` ${(answer.body.machines as Machine[]).map((one) => `${one.id} ${phaseOf(one)}`).join(", ")}` : ""}`;
        const about =
          step.act.endsWith("snapshot") && step.act !== "snapshot"
            ? step.snapshot
            : `${step.machine} ${["snapshot", "restore"].includes(step.act) ? `${step.snapshot}${step.memory ? " with memory" : ""}` : ""}`;
        return {
          what: `${Math.round(asked)}-${Math.round(answered)} ${step.act} ${about}: ${said}`,
          asked,
          answered: answer === undefined ? undefined : answered,
          after: (held: Held) => after(step, answer, held),
        };
      })(),
    );
  }
  const seen = await Promise.all(under);
  await settled(world);
  const end = performance.now();
  // What hung up is done by now, or never.
  const ended = seen.map(({ what, asked, answered, after: follow }) => ({
    what,
    asked,
    answered: answered ?? end,
    after: follow,
  }));
  return [...ended, ...(await lastReads(world, end))];
}

test("the search finds an order where there is one, and none where there is none", () => {
  const write = (value: number, asked: number, answered: number): Seen<number> => ({
    what: `write ${value}`,
    asked,
    answered,
    after: () => [value],
  });
  const read = (value: number, asked: number, answered: number): Seen<number> => ({
    what: `read ${value}`,
    asked,
    answered,
    after: (state) => (state === value ? [state] : []),
  });
  assert.equal(noOrder([write(1, 0, 10), read(0, 1, 2), read(1, 3, 4)], 0), undefined);
  assert.equal(noOrder([write(1, 0, 10), write(2, 0, 10), read(2, 11, 12)], 0), undefined);
  assert.deepEqual(noOrder([write(1, 0, 1), read(0, 2, 3)], 0), ["write 1"]);
  assert.ok(noOrder([write(1, 0, 10), read(1, 1, 2), read(0, 3, 4)], 0) !== undefined);
});

test("requests for the same few machines and snapshots, all at once, have an order that explains their answers", async (t) => {
  const random = seeded(t);
  let requests = 0;
  await inStubWorld(
    async (world, { body }) => {
      const oneRun = async (script: readonly Step[]): Promise<void> => {
        const seen = await play(world, body, script);
        requests += script.length;
        const empty: Held = { machines: {}, snapshots: {} };
        const longest = noOrder(seen, empty);
        if (longest !== undefined) {
          const all = seen.map(({ what }) => what).join("\n");
          assert.fail(
            `no order explains these:\n${all}\n\nthe longest that was found:\n${longest.join("\n")}`,
          );
        }
        await world.assertMatchesState();
        await world.assertAuditClean();
        for (const id of MACHINES) assert.equal((await world.delete(`/machines/${id}`)).status, 204);
        for (const id of SNAPSHOTS) assert.equal((await world.delete(`/snapshots/${id}`)).status, 204);
      };
      await fc.assert(fc.asyncProperty(steps, oneRun), {
        seed: random.below(2 ** 31),
        numRuns: RUNS,
        // The same script need not race in the same way again: what is shown is the first that failed.
        endOnFailure: true,
      });
    },
    { env: { FIRECRACKER_HOST_STOP_TIMEOUT: "100ms" } },
  );
  t.diagnostic(`${RUNS} interleavings of ${requests} requests`);
});
