import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import type { Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import type { Machine } from "../../src/contract/machine.ts";
import { inStubWorld, stateDigest } from "../support/stub-world.ts";
import type { World } from "../support/world.ts";
import { bodies, CALLS } from "./fuzz-bodies.ts";
import { DELETE_ONE, JSON_TYPE, NONSENSE, rawBytes, requests, requestText } from "./fuzz-requests.ts";
import { assertOfContract, dial, exchange, parseAnswers, type RawAnswer } from "./fuzz-wire.ts";
import { FULL, type Random, seeded } from "./seed.ts";

/** Bodies of each call that takes one; other requests; connections. */
const RUNS = FULL
  ? { bodies: 3000, requests: 15_000, bytes: 15_000 }
  : { bodies: 150, requests: 800, bytes: 600 };
const IDLE_CONNECTIONS = 1000;
/** Half a request is waited for by the daemon; after so much silence we hang up. */
const HANG_UP_MS = 30;
const HEADERS_LIMIT_MS = 120_000;

/** What a run of the fuzzer counts, to be shown. */
class Tally {
  readonly #answers = new Map<number, number>();
  inputs = 0;

  add(answers: readonly RawAnswer[]): void {
    this.inputs += 1;
    for (const { status } of answers) this.#answers.set(status, (this.#answers.get(status) ?? 0) + 1);
  }

  toString(): string {
    const answers = [...this.#answers]
      .sort(([a], [b]) => a - b)
      .map(([status, count]) => `${count} × ${status}`);
    return `${this.inputs} inputs: ${answers.join(", ")}`;
  }
}

async function check<T>(
  random: Random,
  runs: number,
  inputs: fc.Arbitrary<T>,
  holds: (input: T) => Promise<void>,
): Promise<void> {
  await fc.assert(fc.asyncProperty(inputs, holds), {
    seed: random.below(2 ** 31),
    numRuns: runs,
    // Shrinking a failure takes as long as it takes, within reason.
    interruptAfterTimeLimit: FULL ? 3_600_000 : 300_000,
    markInterruptAsFailure: true,
  });
}

/** Puts back what an input changed that was not refused: machine `one` runs, snapshot `s` is there, and nothing else. */
async function reset(world: World, create: object): Promise<void> {
  for (const { id } of (await world.get("/machines")).body.machines as Machine[])
    if (id !== "one") assert.equal((await world.delete(`/machines/${id}`)).status, 204);
  const snapshots = (await world.get("/storage/report")).body.snapshots as { id: string }[];
  for (const { id } of snapshots)
    if (id !== "s") assert.equal((await world.delete(`/snapshots/${id}`)).status, 204);
  const one = await world.get("/machines/one");
  if (one.status === 404) assert.equal((await world.post("/machines", create)).status, 201);
  else if (one.body.machine.phase === "stopped") {
    await world.post("/machines/one/resize", { memory_mib: 64, vcpus: 1 });
    assert.equal((await world.post("/machines/one/start")).status, 200);
  } else if (one.body.machine.paused === true) await world.post("/machines/one/resume");
  if (!snapshots.some(({ id }) => id === "s"))
    assert.equal((await world.post("/machines/one/snapshots", { snapshot_id: "s" })).status, 201);
}

/** Sends bytes and judges what comes back: of the contract, and without an effect unless something was done as asked. */
async function judge(
  world: World,
  tally: Tally,
  bytes: Buffer | string,
  options: { isHead?: boolean; hangUpMs?: number } = {},
): Promise<{ answers: RawAnswer[]; done: boolean }> {
  const before = stateDigest(world);
  const answers = parseAnswers(await exchange(world.socket, bytes, options), options.isHead);
  tally.add(answers);
  for (const answer of answers) assertOfContract(answer, options.isHead);
  // What was begun and undone, or done, is no longer refused.
  const done = answers.some(({ status }) => (status >= 200 && status < 300) || status >= 500);
  if (!done) assert.equal(stateDigest(world), before, "a request that was refused changed the state");
  return { answers, done };
}

async function idleConnections(world: World, t: TestContext): Promise<void> {
  const descriptors = (): number => readdirSync(`/proc/${world.daemonPid}/fd`).length;
  const before = descriptors();
  const idle: Socket[] = [];
  try {
    while (idle.length < IDLE_CONNECTIONS) {
      const some = await Promise.all(Array.from({ length: 100 }, () => dial(world.socket)));
      for (const [index, socket] of some.entries()) {
        socket.on("error", () => {});
        // Some say nothing, some begin to.
        if (index % 4 === 0) socket.write("POST /machines HTTP/1.1\r\nhost: x\r\ncontent-le");
      }
      idle.push(...some);
    }
    const { status } = await world.post("/machines/one/pause");
    assert.equal(status, 200);
    assert.equal((await world.post("/machines/one/resume")).status, 200);
    const open = descriptors() - before;
    // Some of its own come and go meanwhile.
    assert.ok(open > IDLE_CONNECTIONS - 50, `only ${open} connections stand`);
    t.diagnostic(`${open} connections stood while others were answered`);
  } finally {
    for (const socket of idle) socket.destroy();
  }
  for (let attempt = 0; descriptors() > before + 10; attempt += 1) {
    assert.ok(attempt < 200, `${descriptors() - before} descriptors are left open`);
    await sleep(50);
  }
}

/** A request of which only a part comes is answered, in time, and its connection closed. */
async function halfRequests(world: World, tally: Tally): Promise<void> {
  const halves = [
    "GET /hea",
    "POST /machines HTTP/1.1\r\nhost: x\r\nx: ",
    `POST /machines HTTP/1.1\r\nhost: x\r\n${JSON_TYPE}\r\ncontent-length: 100\r\n\r\n{"machine_id":"half"`,
    `POST /machines HTTP/1.1\r\nhost: x\r\n${JSON_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"ma`,
  ];
  await Promise.all(
    halves.map(async (half) => {
      const answers = parseAnswers(await exchange(world.socket, half, { limitMs: HEADERS_LIMIT_MS }));
      tally.add(answers);
      assert.equal(answers.length, 1, half);
      for (const answer of answers) {
        assert.equal(answer.status, 400);
        assertOfContract(answer);
      }
    }),
  );
}

test("whatever comes over the socket is answered by the contract, and what is refused has no effect", async (t) => {
  const random = seeded(t);
  await inStubWorld(async (world, { body }) => {
    const create = { machine_id: "one", ...body };
    await reset(world, create);
    for (const { method, path, body: schema } of CALLS) {
      if (schema === undefined) continue;
      await t.test(`bodies of ${method} ${path}`, async (inner) => {
        const tally = new Tally();
        const ids = fc.constantFrom(path.startsWith("/machines") ? "one" : "s", "none");
        await check(random, RUNS.bodies, fc.tuple(bodies(schema), ids), async ([text, id]) => {
          const { done } = await judge(
            world,
            tally,
            requestText(method, path.replace("{id}", id), [JSON_TYPE], text),
          );
          if (done) await reset(world, create);
        });
        inner.diagnostic(tally.toString());
      });
    }
    await t.test("paths, methods and headers", async (inner) => {
      const tally = new Tally();
      await check(random, RUNS.requests, requests, async ({ text, isHead }) => {
        const { done } = await judge(world, tally, text, { isHead });
        if (done) await reset(world, create);
      });
      inner.diagnostic(tally.toString());
    });
    await t.test("bytes that are no request, or two", async (inner) => {
      const tally = new Tally();
      const before = stateDigest(world);
      for (const text of NONSENSE) {
        try {
          await judge(world, tally, Buffer.from(text, "latin1"), { hangUpMs: HANG_UP_MS });
        } catch (error) {
          throw new Error(`after ${JSON.stringify(text.slice(0, 200))}`, { cause: error });
        }
      }
      await check(random, RUNS.bytes, rawBytes, async (bytes) => {
        await judge(world, tally, bytes, { hangUpMs: HANG_UP_MS });
      });
      assert.equal(stateDigest(world), before);
      inner.diagnostic(tally.toString());
    });
    await t.test("requests one behind the other", async () => {
      const gets = "GET /machines/one HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
      const answers = parseAnswers(await exchange(world.socket, `${gets}GARBAGE\r\n\r\n${DELETE_ONE}`));
      assert.deepEqual(
        answers.map(({ status }) => status),
        [...Array.from({ length: 100 }, () => 200), 400],
      );
      for (const answer of answers) assertOfContract(answer);
    });
    await t.test(
      "a thousand connections that say nothing",
      async (inner) => await idleConnections(world, inner),
    );
    // Each waits for the daemon's own limits, which are a minute and more.
    if (FULL) {
      await t.test("half requests", async (inner) => {
        const tally = new Tally();
        await halfRequests(world, tally);
        inner.diagnostic(tally.toString());
      });
    }
    assert.equal((await world.get("/machines/one")).body.machine.phase, "running");
    await world.assertMatchesState();
    await world.assertAuditClean();
    assert.ok(!/"level":60|"code":"internal"/.test(world.log));
  });
});
