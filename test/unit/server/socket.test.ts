import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { listenOnSocket } from "../../../src/api/listen.ts";
import { makeServer } from "../../../src/api/server.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

/** The API on a real Unix socket, spoken to in bytes, with every line of its log. */
async function makeSocketApi() {
  const folder = await mkdtemp(join(tmpdir(), "socket-"));
  const path = join(folder, "s.sock");
  const fakes = await makeFakeHost();
  const lines: string[] = [];
  const app = await makeServer(fakes.host, pino({ level: "trace" }, { write: (line) => lines.push(line) }));
  await listenOnSocket(app.server, path, undefined, assert.ifError);
  /** Sends `text` and returns what comes back until the daemon closes or `answers` answers are there. */
  const send = async (text: string, answers = 1): Promise<string> => {
    const socket = createConnection(path);
    let said = "";
    socket.setEncoding("utf8").on("data", (part: string) => {
      said += part;
      if (said.split("HTTP/1.1 ").length - 1 >= answers && /\r\n\r\n/.test(said)) socket.end();
    });
    socket.on("error", () => {});
    socket.write(text);
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.once("close", () => resolve()).setTimeout(3000, () => socket.destroy());
    await promise;
    return said;
  };
  /** Status, code and body of the answer to one request. */
  const ask = async (head: string, body?: string, type = "application/json") => {
    const said = await send(
      `${head} HTTP/1.1\r\nHost: x\r\n${body === undefined ? "" : `Content-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`}\r\n${body ?? ""}`,
    );
    const text = said.slice(said.indexOf("\r\n\r\n") + 4);
    return {
      status: Number(said.split(" ")[1]),
      said,
      answer: text.startsWith("{")
        ? (JSON.parse(text) as { code?: string; details?: { field?: string } })
        : {},
    };
  };
  return {
    ...fakes,
    app,
    path,
    lines,
    send,
    ask,
    [Symbol.asyncDispose]: async () => {
      await fakes.host.close();
      await app.close();
      await rm(folder, { recursive: true });
    },
  };
}

const GARBAGE: readonly (readonly [what: string, bytes: string])[] = [
  ["bytes that are no HTTP", "GARBAGE\r\n\r\n"],
  ["a method that nobody knows", "FOO /machines HTTP/1.1\r\nHost: x\r\n\r\n"],
  ["headers beyond all measure", `GET /machines HTTP/1.1\r\nHost: x\r\nX: ${"a".repeat(40_000)}\r\n\r\n`],
  ["a path that is wrongly encoded", "GET /machines/%zz HTTP/1.1\r\nHost: x\r\n\r\n"],
  ["an id that is far too long", `GET /machines/${"a".repeat(500)} HTTP/1.1\r\nHost: x\r\n\r\n`],
  [
    "two lengths",
    "POST /machines HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
  ],
];

test("what is no proper request gets a 400 in the shape of every other error", async (t) => {
  await using api = await makeSocketApi();
  for (const [what, bytes] of GARBAGE) {
    await t.test(what, async () => {
      const said = await api.send(bytes);
      assert.match(said, /^HTTP\/1\.1 400 /);
      const answer = JSON.parse(said.slice(said.indexOf("\r\n\r\n") + 4)) as Record<string, unknown>;
      assert.equal(answer["code"], "bad_request");
      assert.equal(typeof answer["error"], "string");
      assert.doesNotMatch(said, /FST_|statusCode/);
    });
  }
});

test("HEAD and OPTIONS on a path that exists are 405, like every other method it does not offer", async () => {
  await using api = await makeSocketApi();
  for (const method of ["HEAD", "OPTIONS", "PUT"]) {
    const { status, said } = await api.ask(`${method} /machines`);
    assert.equal(status, 405, method);
    assert.match(said, /^allow: /im);
  }
});

test("a call without a body takes an empty one in whatever way it is said, and refuses fields", async () => {
  await using api = await makeSocketApi();
  await api.host.create({ machine_id: "one" }, api.trace());
  for (const body of [undefined, "", "null", "{}"]) {
    assert.equal((await api.ask("POST /machines/one/stop", body)).status, 204, `stop ${body}`);
    assert.equal((await api.ask("DELETE /machines/none", body)).status, 204, `delete ${body}`);
  }
  for (const call of ["POST /machines/one/stop", "DELETE /machines/one", "DELETE /snapshots/one"]) {
    const { status, answer } = await api.ask(call, '{"force":true}');
    assert.deepEqual([status, answer.code, answer.details?.field], [400, "bad_request", "force"], call);
    assert.equal((await api.ask(call, "[1]")).status, 400, call);
  }
  assert.equal((await api.ask("GET /machines/one")).status, 200);
});

test("every answer says how long it took", async () => {
  await using api = await makeSocketApi();
  for (const call of [
    "GET /health",
    "GET /machines",
    "GET /machines/none",
    "DELETE /machines/none",
    "GET /nowhere",
  ]) {
    assert.match((await api.ask(call)).said, /^server-timing: (.+, )?total;dur=\d+\.\d\r$/im, call);
  }
});

test("requests that come in one packet are answered in their order", async () => {
  await using api = await makeSocketApi();
  const said = await api.send(
    "GET /machines HTTP/1.1\r\nHost: x\r\n\r\nGET /machines/none HTTP/1.1\r\nHost: x\r\n\r\n",
    2,
  );
  assert.deepEqual(
    [...said.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
    ["200", "404"],
  );
});

test("the daemon ends although clients hold connections with nothing, half a head or half a body", async () => {
  await using api = await makeSocketApi();
  const post =
    "POST /machines HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
  for (const bytes of ["", "POST /machines HTTP/1.1\r\nHo", post]) {
    const socket = createConnection(api.path);
    socket.on("error", () => {});
    if (bytes !== "") socket.write(bytes);
  }
  await sleep(50);
  const started = performance.now();
  await api.host.close();
  await api.app.close();
  assert.ok(performance.now() - started < 3000);
});

test("a client that hangs up ends nothing", async () => {
  await using api = await makeSocketApi();
  const { promise, resolve } = Promise.withResolvers<void>();
  api.vmms.hold.boot = promise;
  const socket = createConnection(api.path);
  const body = '{"machine_id":"one"}';
  socket.write(
    `POST /machines HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  while (api.vmms.jails.size === 0) await sleep(5);
  socket.destroy();
  await sleep(20);
  resolve();
  while (api.host.listMachines()[0]?.phase !== "running") await sleep(5);
});

test("no token and no key of a request reaches the log, whether it succeeds, fails or is malformed", async () => {
  await using api = await makeSocketApi();
  const guest_config = {
    authorized_keys: ["ssh-ed25519 SECRETKEY"],
    login_webhook: { url: "https://hook.example/", bearer_token: "SECRETTOKEN" },
  };
  const create = (body: object) => api.ask("POST /machines", JSON.stringify({ guest_config, ...body }));
  await create({ machine_id: "one" });
  await create({ machine_id: "A" });
  api.storage.failures.set("localImage", new Error("a bug"));
  assert.equal((await create({ machine_id: "two" })).status, 500);
  await api.ask("POST /machines", `{"guest_config":${JSON.stringify(guest_config)},`);
  assert.ok(api.lines.length > 0);
  assert.doesNotMatch(api.lines.join(""), /SECRET/);
});

test("only root and the group reach the socket, and a stale one is replaced", async () => {
  const folder = await mkdtemp(join(tmpdir(), "socket-"));
  const path = join(folder, "s.sock");
  spawnSync(process.execPath, [
    "-e",
    `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`,
  ]);
  assert.ok((await stat(path)).isSocket());
  const server = createServer();
  const errors: Error[] = [];
  await listenOnSocket(server, path, undefined, (error) => errors.push(error));
  assert.equal((await stat(path)).mode & 0o777, 0o660);
  await assert.rejects(listenOnSocket(createServer(), path, undefined, assert.ifError), /another daemon/);
  server.emit("error", new Error("accept EMFILE"));
  assert.equal(errors.length, 1, "it is told and ends nothing");
  server.close();
  await rm(folder, { recursive: true });
});
