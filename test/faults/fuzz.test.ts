import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import type { Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import type { Machine } from "../../src/contract/machine.ts";
import type { World } from "../support/world.ts";
import { bodies, CALLS } from "./fuzz-bodies.ts";
import { assertOfContract, dial, exchange, parseAnswers, type RawAnswer } from "./fuzz-wire.ts";
import { FULL, inStubWorld, stateDigest } from "./fuzz-world.ts";
import { type Random, seeded } from "./seed.ts";

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

function requestText(method: string, target: string, headers: readonly string[], body?: string): string {
  const length = body === undefined ? [] : [`content-length: ${Buffer.byteLength(body)}`];
  const lines = [`${method} ${target} HTTP/1.1`, "host: x", "connection: close", ...headers, ...length];
  return `${lines.join("\r\n")}\r\n\r\n${body ?? ""}`;
}

const JSON_TYPE = "content-type: application/json";

/** What may stand in a path where an id is expected. */
const hostileIds = fc.oneof(
  fc.constantFrom(
    ..."one s none . .. ... %2e%2e ..%2f..%2fmachines ..%5c.. %00 one%00 one%2f..%2fs %252e%252e %c0%ae%c0%ae %ff %zz % %2".split(
      " ",
    ),
    ..."one; one* -one ONE one%20 %0d%0aSet-Cookie:x ~root $(id) `id` %F0%9F%92%A9 con nul one? one# __proto__ constructor".split(
      " ",
    ),
    "",
    "a".repeat(64),
    "a".repeat(10_000),
    "../".repeat(50),
  ),
  fc.string({ unit: "binary", maxLength: 20 }).map((text) => encodeURIComponent(text.toWellFormed())),
);

const methods = fc.constantFrom(
  ..."GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND LINK QUERY SEARCH PURGE M-SEARCH MKCOL".split(
    " ",
  ),
);

const headers = fc.subarray(
  [
    JSON_TYPE,
    "content-type: application/json; charset=utf-16",
    "content-type: text/plain",
    "content-type: multipart/form-data; boundary=x",
    "content-type: application/jsonx",
    "content-type: ;;;",
    "content-encoding: gzip",
    "expect: 100-continue",
    "expect: a miracle",
    "upgrade: websocket",
    "range: bytes=0-0",
    "range: bytes=-1",
    "range: bytes=99999999999999999999-",
    "range: lines=1-2, bytes=9-1",
    'if-none-match: *, "x", W/"y"',
    "if-range: yesterday",
    "accept: text/html;q=NaN",
    "x-http-method-override: DELETE",
    "x-forwarded-for: 127.0.0.1",
    "authorization: Basic Og==",
    "__proto__: x",
    "constructor: x",
    `cookie: ${"a=b; ".repeat(1000)}`,
  ],
  { maxLength: 4 },
);

const requests = fc
  .record({
    call: fc.constantFrom(...CALLS),
    method: fc.option(methods, { freq: 2 }),
    id: hostileIds,
    artifact: fc.oneof(fc.constantFrom("disk", "manifest", "memory"), hostileIds),
    headers,
    tail: fc.constantFrom("", "", "", "/", "//", "?x=1", "?__proto__[x]=1", "/..", "/%2e%2e", ";x"),
    body: fc.option(fc.constantFrom("{}", "null", "[]", "{", '{"x":1}', "\xff"), { freq: 2 }),
  })
  .map(({ call, method, id, artifact, headers, tail, body }) => {
    const target = call.path.replace("{id}", id).replace("{artifact_id}", artifact) + tail;
    const name = method ?? call.method;
    return { isHead: name === "HEAD", text: requestText(name, target, headers, body ?? undefined) };
  });

/** Requests that are refused however one reads them, to be broken byte by byte. */
const REFUSED = [
  requestText("POST", "/machines/zzz/stop", []),
  requestText("DELETE", "/machines/-zzz", []),
  requestText("POST", "/machines", [JSON_TYPE], '{"vcpus":"many"}'),
  requestText("POST", "/machines", [JSON_TYPE, "transfer-encoding: chunked"]) +
    '4\r\n{"x"\r\n3\r\n:1}\r\n0\r\n\r\n',
];

const DELETE_ONE = "DELETE /machines/one HTTP/1.1\r\nhost: x\r\n\r\n";

/** Bytes that are no request, or that two readers could take for different ones. None may delete machine `one`. */
const NONSENSE: readonly string[] = [
  "",
  "\r\n\r\n",
  "\0\0\0\0",
  "GET\r\n\r\n",
  "GET /health\r\n\r\n",
  "GET /health HTTP/0.9\r\n\r\n",
  "GET /health HTTP/9.9\r\nhost: x\r\n\r\n",
  "GET /health HTTP/1.1\r\n\r\n",
  "GET http://elsewhere/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
  "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
  "CONNECT elsewhere:443 HTTP/1.1\r\nhost: x\r\n\r\n",
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
  "SSH-2.0-OpenSSH_9.9\r\n",
  `GET /${"x".repeat(100_000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
  `GET /health HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(200_000)}\r\n\r\n`,
  `GET /health HTTP/1.1\r\nhost: x\r\n${"x: y\r\n".repeat(20_000)}\r\n`,
  `GET /health HTTP/1.1\r\nhost: x\r\n folded: x\r\nconnection: close\r\n\r\n`,
  "GET /health HTTP/1.1\r\nhost: x\r\nx y: z\r\n\r\n",
  "GET /health HTTP/1.1\r\nhost: x\r\nx: \0\r\n\r\n",
  "GET /health HTTP/1.1\nhost: x\nconnection: close\n\n",
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 0x10\r\n\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 0\r\n\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 200\r\n\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n5\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;${"x".repeat(50_000)}\r\n${DELETE_ONE}`,
  `POST /machines/zzz/stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n0\r\n\r\n${DELETE_ONE}`,
  `POST /machines HTTP/1.1\r\nhost: x\r\n${JSON_TYPE}\r\ncontent-length: 1000\r\n\r\n{"machine_id":"half"}`,
  `POST /machines HTTP/1.1\r\nhost: x\r\n${JSON_TYPE}\r\ncontent-length: 22\r\n\r\n{"machine_id":"half"`,
  `POST /machines HTTP/1.1\r\nhost: x\r\n${JSON_TYPE}\r\ncontent-length: 4\r\nconnection: close\r\n\r\n\xff\xfe{}`,
  `POST /machines HTTP/1.1\r\nhost: x\r\n${JSON_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n15\r\n{"machine_id":"half"}\r\n`,
];

const broken = fc
  .record({
    text: fc.constantFrom(...REFUSED),
    edits: fc.array(
      fc.record({ at: fc.nat(), cut: fc.nat({ max: 4 }), put: fc.uint8Array({ maxLength: 4 }) }),
      { minLength: 1, maxLength: 4 },
    ),
  })
  .map(({ text, edits }) => {
    let bytes = Buffer.from(text, "latin1");
    for (const { at, cut, put } of edits) {
      const start = at % (bytes.length + 1);
      bytes = Buffer.concat([bytes.subarray(0, start), put, bytes.subarray(start + cut)]);
    }
    return bytes;
  });

const rawBytes = fc.oneof(
  { weight: 4, arbitrary: broken },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)) },
);

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
