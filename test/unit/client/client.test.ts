import assert from "node:assert/strict";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import { type ComputerHostClient, createClient } from "../../../src/client/client.ts";
import { ClientError, errorOfConnection } from "../../../src/client/client-error.ts";
import { defaultSocketPath } from "../../../src/client/socket-path.ts";
import { audit, health, machine, repair, snapshot, storageReport, verdict } from "./support/samples.ts";
import { always, type Responder, startSocketServer } from "./support/socket-server.ts";

interface Call {
  readonly name: string;
  readonly run: (client: ComputerHostClient) => Promise<unknown>;
  readonly request: { method: string; path: string; body?: unknown };
  readonly answer: { status: number; body?: object };
  readonly result: unknown;
}

const create = { machine_id: "web", memory_mib: 512 };
const restore = { machine_id: "copy" };
const fork = { count: 2, id_prefix: "kid-" };
const plan = { artifacts: [] };

const calls: Call[] = [
  {
    name: "health",
    run: (client) => client.health(),
    request: { method: "GET", path: "/health" },
    answer: { status: 200, body: health },
    result: health,
  },
  {
    name: "create",
    run: (client) => client.createMachine(create),
    request: { method: "POST", path: "/machines", body: create },
    answer: { status: 201, body: { machine } },
    result: { machine, created: true },
  },
  {
    name: "create of a machine that is there",
    run: (client) => client.createMachine(create),
    request: { method: "POST", path: "/machines", body: create },
    answer: { status: 200, body: { machine } },
    result: { machine, created: false },
  },
  {
    name: "list of machines",
    run: (client) => client.listMachines(),
    request: { method: "GET", path: "/machines" },
    answer: { status: 200, body: { machines: [machine] } },
    result: [machine],
  },
  {
    name: "get of a machine",
    run: (client) => client.getMachine("web"),
    request: { method: "GET", path: "/machines/web" },
    answer: { status: 200, body: { machine } },
    result: machine,
  },
  {
    name: "delete of a machine",
    run: (client) => client.deleteMachine("web"),
    request: { method: "DELETE", path: "/machines/web" },
    answer: { status: 204 },
    result: undefined,
  },
  {
    name: "stop",
    run: (client) => client.stopMachine("web"),
    request: { method: "POST", path: "/machines/web/stop" },
    answer: { status: 204 },
    result: undefined,
  },
  {
    name: "start",
    run: (client) => client.startMachine("web"),
    request: { method: "POST", path: "/machines/web/start" },
    answer: { status: 200, body: { machine } },
    result: machine,
  },
  {
    name: "pause",
    run: (client) => client.pauseMachine("web"),
    request: { method: "POST", path: "/machines/web/pause" },
    answer: { status: 200, body: { machine: { ...machine, paused: true } } },
    result: { ...machine, paused: true },
  },
  {
    name: "resume",
    run: (client) => client.resumeMachine("web"),
    request: { method: "POST", path: "/machines/web/resume" },
    answer: { status: 200, body: { machine } },
    result: machine,
  },
  {
    name: "resize",
    run: (client) => client.resizeMachine("web", { memory_mib: 256 }),
    request: { method: "POST", path: "/machines/web/resize", body: { memory_mib: 256 } },
    answer: { status: 200, body: { machine } },
    result: machine,
  },
  {
    name: "fork",
    run: (client) => client.forkMachine("web", fork),
    request: { method: "POST", path: "/machines/web/fork", body: fork },
    answer: { status: 201, body: { machines: [machine] } },
    result: { machines: [machine], created: true },
  },
  {
    name: "fork whose children are there",
    run: (client) => client.forkMachine("web", fork),
    request: { method: "POST", path: "/machines/web/fork", body: fork },
    answer: { status: 200, body: { machines: [machine] } },
    result: { machines: [machine], created: false },
  },
  {
    name: "verdict on a snapshot",
    run: (client) => client.compatibility("before"),
    request: { method: "GET", path: "/snapshots/before/compatibility" },
    answer: { status: 200, body: verdict },
    result: verdict,
  },
  {
    name: "upload",
    run: (client) => client.uploadSnapshot("before", plan),
    request: { method: "POST", path: "/snapshots/before/upload", body: plan },
    answer: { status: 200, body: { artifacts: [] } },
    result: { artifacts: [] },
  },
  {
    name: "storage report",
    run: (client) => client.storageReport(),
    request: { method: "GET", path: "/storage/report" },
    answer: { status: 200, body: storageReport },
    result: storageReport,
  },
  {
    name: "audit",
    run: (client) => client.audit(),
    request: { method: "GET", path: "/audit" },
    answer: { status: 200, body: audit },
    result: audit,
  },
  {
    name: "repair",
    run: (client) => client.repair(),
    request: { method: "POST", path: "/audit/repair" },
    answer: { status: 200, body: repair },
    result: repair,
  },
  {
    name: "snapshot",
    run: (client) => client.createSnapshot("web", { snapshot_id: "before" }),
    request: { method: "POST", path: "/machines/web/snapshots", body: { snapshot_id: "before" } },
    answer: { status: 201, body: { snapshot, artifacts: snapshot.artifacts } },
    result: { snapshot, artifacts: snapshot.artifacts },
  },
  {
    name: "list of snapshots",
    run: (client) => client.listSnapshots("web"),
    request: { method: "GET", path: "/machines/web/snapshots" },
    answer: { status: 200, body: { snapshots: [snapshot] } },
    result: [snapshot],
  },
  {
    name: "get of a snapshot",
    run: (client) => client.getSnapshot("before"),
    request: { method: "GET", path: "/snapshots/before" },
    answer: { status: 200, body: { snapshot } },
    result: snapshot,
  },
  {
    name: "delete of a snapshot",
    run: (client) => client.deleteSnapshot("before"),
    request: { method: "DELETE", path: "/snapshots/before" },
    answer: { status: 204 },
    result: undefined,
  },
  {
    name: "restore",
    run: (client) => client.restoreSnapshot("before", restore),
    request: { method: "POST", path: "/snapshots/before/restore", body: restore },
    answer: { status: 201, body: { machine } },
    result: { machine, created: true },
  },
];

async function failure(responder: Responder): Promise<ClientError> {
  await using server = await startSocketServer(responder);
  await using client = createClient(server);
  try {
    await client.getMachine("web");
  } catch (error) {
    assert.ok(error instanceof ClientError, String(error));
    return error;
  }
  return assert.fail("the call did not fail");
}

describe("each call of the contract", () => {
  for (const { name, run, request, answer, result } of calls) {
    it(`${name} asks ${request.method} ${request.path} and returns what the daemon says`, async () => {
      await using server = await startSocketServer(always(answer.status, answer.body));
      await using client = createClient(server);
      assert.deepEqual(await run(client), result);
      const { contentType, ...seen } = server.requests[0] ?? assert.fail("nothing was asked");
      assert.deepEqual(seen, { body: undefined, ...request });
      assert.equal(contentType, request.body === undefined ? undefined : "application/json");
    });
  }

  it("keeps an id from becoming another path", async () => {
    await using server = await startSocketServer(always(204));
    await using client = createClient(server);
    await client.deleteMachine("../snapshots/x?y");
    assert.equal(server.requests[0]?.path, "/machines/..%2Fsnapshots%2Fx%3Fy");
  });
});

describe("a call that fails", () => {
  it("carries the daemon's sentence, code, status and details", async () => {
    const error = await failure(
      always(504, { error: "Not ready.", code: "guest_not_ready", details: { x: 1 } }),
    );
    assert.equal(error.message, "Not ready.");
    assert.equal(error.code, "guest_not_ready");
    assert.equal(error.status, 504);
    assert.deepEqual(error.details, { x: 1 });
  });

  it("says so when the answer is not the contract's", async () => {
    const answers: Responder[] = [
      always(500, { message: "boom" }),
      always(200, {}),
      (_request, response) => response.writeHead(502).end("<html>"),
      (_request, response) => response.writeHead(200).end("{"),
      (_request, response) => response.writeHead(200).end("null"),
    ];
    for (const answer of answers) assert.equal((await failure(answer)).code, "bad_answer");
  });

  it("says so when the daemon dies before it answers", async () => {
    const error = await failure((_request, response) => void response.destroy());
    assert.equal(error.code, "connection_lost");
    assert.equal(error.status, undefined);
  });

  it("names the socket when nobody answers there", async () => {
    await using server = await startSocketServer(always(204));
    const socketPath = join(server.folder, "other.sock");
    await using client = createClient({ socketPath });
    await assert.rejects(client.health(), (error) => {
      assert.ok(error instanceof ClientError);
      assert.equal(error.code, "daemon_unreachable");
      assert.ok(error.message.includes(socketPath));
      return true;
    });
  });

  it("says who may use the socket when the caller may not", () => {
    // Root may use every socket, so the system's refusal is only told here.
    const refusal = Object.assign(new Error("connect EACCES"), { code: "EACCES" });
    const { code, message } = errorOfConnection("/run/x.sock", refusal);
    assert.equal(code, "daemon_unreachable");
    assert.match(message, /\/run\/x\.sock: be root, or in the group/);
  });
});

describe("a file of a snapshot", () => {
  const content = Buffer.from("what a guest remembers");
  const sha256_hex = "c".repeat(64);
  const answer =
    (headers: Record<string, string | number>, sent: Buffer = content): Responder =>
    (_request, response) => {
      response.writeHead(200, headers);
      response.end(sent);
    };
  const good = { etag: `"${sha256_hex}"`, "content-length": content.length };

  it("comes with its size and digest, as it is read", async () => {
    await using server = await startSocketServer(answer(good));
    await using client = createClient(server);
    const { bytes, ...facts } = await client.openArtifact("before", "a/b");
    assert.deepEqual(facts, { size_bytes: content.length, sha256_hex });
    assert.deepEqual(await buffer(bytes), content);
    assert.equal(server.requests[0]?.path, "/snapshots/before/artifacts/a%2Fb");
  });

  it("fails when the daemon goes away in the middle", async () => {
    await using server = await startSocketServer((_request, response) => {
      response.writeHead(200, good);
      response.write(content.subarray(0, 5));
      setTimeout(() => response.destroy(), 20);
    });
    await using client = createClient(server);
    const { bytes } = await client.openArtifact("before", "disk");
    await assert.rejects(buffer(bytes), { name: "ClientError", code: "connection_lost" });
  });

  it("is refused like everything else, and not taken from something that is no daemon", async () => {
    await using server = await startSocketServer(always(404, { error: "No.", code: "artifact_not_found" }));
    await using client = createClient(server);
    await assert.rejects(client.openArtifact("before", "x"), { code: "artifact_not_found", status: 404 });
    for (const headers of [{ "content-length": content.length }, { ...good, etag: 'W/"x"' }]) {
      await using other = await startSocketServer(answer(headers));
      await using client2 = createClient(other);
      await assert.rejects(client2.openArtifact("before", "x"), { code: "bad_answer" });
    }
  });

  it("ends with the signal's own reason", async () => {
    await using server = await startSocketServer((_request, response) => {
      response.writeHead(200, good);
      response.write(content.subarray(0, 5));
    });
    await using client = createClient(server);
    const abort = new AbortController();
    const { bytes } = await client.openArtifact("before", "disk", { signal: abort.signal });
    const reason = new Error("enough");
    setTimeout(() => abort.abort(reason), 20);
    await assert.rejects(buffer(bytes), (error) => error === reason);
  });
});

describe("a call that takes long", () => {
  it("does not keep others waiting", async () => {
    await using server = await startSocketServer((request, response) => {
      if (request.method === "GET") always(200, { machines: [] })(request, response);
    });
    await using client = createClient(server);
    const abort = new AbortController();
    const creating = client.createMachine(create, { signal: abort.signal });
    assert.deepEqual(await client.listMachines(), []);
    abort.abort(new Error("enough"));
    await assert.rejects(creating, /enough/);
  });

  it("ends with the signal's own reason", async () => {
    await using server = await startSocketServer(() => {});
    await using client = createClient(server);
    const reason = new Error("the caller has gone");
    const abort = new AbortController();
    const creating = client.createMachine(create, { signal: abort.signal });
    setTimeout(() => abort.abort(reason), 20);
    await assert.rejects(creating, (error) => error === reason);
  });

  it("ends when the client is closed", async () => {
    await using server = await startSocketServer(() => {});
    const client = createClient(server);
    const creating = client.createMachine(create);
    setTimeout(() => void client.close(), 20);
    await assert.rejects(creating, { code: "connection_lost" });
  });
});

describe("the socket's place", () => {
  it("follows the daemon's root", () => {
    assert.equal(defaultSocketPath({}), "/var/lib/computer-host/firecracker-host.sock");
    assert.equal(defaultSocketPath({ FIRECRACKER_HOST_ROOT_DIR: "/srv/x" }), "/srv/x/firecracker-host.sock");
  });
});
