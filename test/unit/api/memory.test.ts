import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { makeServer } from "../../../src/api/server.ts";
import { RECEIPT_ITEMS } from "../../../src/contract/machine.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

async function makeApi() {
  const { host } = await makeFakeHost();
  const app = await makeServer(host, pino({ level: "silent" }));
  const post = async (url: string, payload: object) => {
    const response = await app.inject({ method: "POST", url, payload });
    return { status: response.statusCode, body: JSON.parse(response.payload) };
  };
  return {
    app,
    post,
    get: async (url: string) => JSON.parse((await app.inject({ url })).payload),
    [Symbol.asyncDispose]: async () => {
      await app.close();
      await host.close();
    },
  };
}

test("a snapshot with memory is judged, woken twice and told apart, and its files are there to be fetched", async () => {
  await using api = await makeApi();
  await api.post("/machines", { machine_id: "one", track_dirty_pages: true });
  const taken = await api.post("/machines/one/snapshots", { snapshot_id: "warm", memory: true });
  assert.deepEqual([taken.status, taken.body.snapshot.memory], [201, "full"]);
  const artifacts: { id: string; kind: string; size_bytes: number; sha256_hex: string }[] =
    taken.body.artifacts;
  assert.deepEqual(
    artifacts.map(({ kind }) => kind),
    ["disk", "memory", "vmstate", "manifest"],
  );
  assert.deepEqual(await api.get("/snapshots/warm/compatibility"), {
    snapshot_id: "warm",
    restorable: "live",
    reasons: [],
  });
  const woken = await Promise.all(
    ["two", "three"].map((machine_id) => api.post("/snapshots/warm/restore", { machine_id })),
  );
  assert.deepEqual(
    woken.map(({ status }) => status),
    [201, 201],
  );
  const machines = woken.map(({ body }) => body.machine);
  assert.equal(new Set(machines.map(({ guest_machine_id }) => guest_machine_id)).size, 2);
  for (const { receipt } of machines) {
    assert.deepEqual(
      receipt.map(({ item }: { item: string }) => item),
      RECEIPT_ITEMS,
    );
  }
  const later = await api.post("/machines/one/snapshots", { snapshot_id: "later", memory: "diff" });
  assert.deepEqual([later.status, later.body.snapshot.memory], [201, "diff"]);
  for (const { id, size_bytes, sha256_hex } of artifacts) {
    const { statusCode, headers } = await api.app.inject({
      method: "HEAD",
      url: `/snapshots/warm/artifacts/${id}`,
    });
    assert.equal(statusCode, 200, id);
    assert.deepEqual([headers["content-length"], headers.etag], [String(size_bytes), `"${sha256_hex}"`]);
  }
  const missing = await api.app.inject({ url: "/snapshots/warm/artifacts/later-memory" });
  assert.deepEqual([missing.statusCode, missing.json().code], [404, "artifact_not_found"]);
});

test("a fork makes its children once, and the same fork again finds them", async () => {
  await using api = await makeApi();
  await api.post("/machines", { machine_id: "one" });
  const fork = { count: 2, id_prefix: "kid-" };
  const first = await api.post("/machines/one/fork", fork);
  assert.equal(first.status, 201);
  assert.deepEqual(
    first.body.machines.map(({ id, phase }: { id: string; phase: string }) => [id, phase]),
    [
      ["kid-1", "running"],
      ["kid-2", "running"],
    ],
  );
  const again = await api.post("/machines/one/fork", fork);
  assert.deepEqual([again.status, again.body], [200, first.body]);
  assert.deepEqual((await api.get("/machines/one/snapshots")).snapshots, []);
  for (const [body, code] of [
    [{ machine_id: "x", count: 2 }, "contradiction"],
    [{ count: 2 }, "bad_request"],
    [{}, "bad_request"],
  ] as const) {
    const refused = await api.post("/machines/one/fork", body);
    assert.deepEqual([refused.status, refused.body.code], [400, code], JSON.stringify(body));
  }
});
