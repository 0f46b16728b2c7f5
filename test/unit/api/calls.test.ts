import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import type { Machine } from "../../../src/contract/machine.ts";
import type { Compatibility, UploadSnapshot } from "../../../src/contract/snapshot.ts";
import { machine, snapshot } from "../client/support/samples.ts";
import { apiOn } from "./api-on.ts";

const PART = { part_number: 1, offset_bytes: 0, size_bytes: 4, upload_url: "https://store.example/p1?sig=x" };
const PLAN: UploadSnapshot = {
  artifacts: [{ artifact_id: "disk", object_key: "k", upload_id: "u", parts: [PART] }],
};

test("a fork answers with its children, 201 when it made them and 200 when they were there", async () => {
  const children: Machine[] = [
    { ...machine, id: "kid-1", receipt: [{ item: "clock", done: true, how: "stepped" }] },
    { ...machine, id: "kid-2" },
  ];
  const asked: unknown[] = [];
  let created = true;
  await using api = await apiOn({
    fork: async (id, request, trace) => {
      asked.push([id, request]);
      await trace.step("freeze", () => Promise.resolve());
      return { machines: children, created };
    },
  });
  const payload = { count: 2, id_prefix: "kid-", guest_config: { hostname: "kid" }, ready: "started" };
  const first = await api.app.inject({ method: "POST", url: "/machines/web/fork", payload });
  assert.deepEqual([first.statusCode, first.json()], [201, { machines: children }]);
  assert.match(String(first.headers["server-timing"]), /\bfreeze;dur=\d/);
  created = false;
  assert.equal(
    (await api.app.inject({ method: "POST", url: "/machines/web/fork", payload })).statusCode,
    200,
  );
  assert.deepEqual(asked, [
    ["web", payload],
    ["web", payload],
  ]);
});

test("a verdict is told with its reasons", async () => {
  const verdict: Compatibility = {
    snapshot_id: "before",
    restorable: "disk",
    reasons: [{ code: "cpu_features", text: "This CPU lacks avx512f.", prevents: "live" }],
  };
  await using api = await apiOn({ compatibility: () => Promise.resolve(verdict) });
  const { statusCode, payload } = await api.app.inject({ url: "/snapshots/before/compatibility" });
  assert.deepEqual([statusCode, JSON.parse(payload)], [200, verdict]);
});

test("an upload answers with the parts that the store took, and with the part that it did not", async () => {
  const uploaded = {
    artifacts: [{ artifact_id: "disk", completed_parts: [{ part_number: 1, etag: '"e"' }] }],
  };
  let failure: AppError | undefined;
  await using api = await apiOn({
    upload: async (_id, request) => {
      await Promise.resolve();
      assert.deepEqual(request, PLAN);
      if (failure !== undefined) throw failure;
      return uploaded;
    },
  });
  const send = () => api.app.inject({ method: "POST", url: "/snapshots/before/upload", payload: PLAN });
  const done = await send();
  assert.deepEqual([done.statusCode, done.json()], [200, uploaded]);
  failure = new AppError("upload_failed", "part 1 was refused", { details: { part_number: 1 } });
  const failed = await send();
  assert.deepEqual([failed.statusCode, failed.json().details], [502, { part_number: 1 }]);
});

test("an upload of thousands of parts fits into a request; other bodies stay small", async () => {
  const parts = Array.from({ length: 4000 }, (_, index) => ({
    ...PART,
    part_number: index + 1,
    upload_url: `https://store.example/p?${"x".repeat(1500)}`,
  }));
  let seen = 0;
  await using api = await apiOn({
    upload: async (_id, request) => {
      await Promise.resolve();
      seen = request.artifacts[0]?.parts.length ?? 0;
      return { artifacts: [] };
    },
  });
  const post = (url: string, payload: object) => api.app.inject({ method: "POST", url, payload });
  const plan = { artifacts: [{ artifact_id: "memory", object_key: "k", upload_id: "u", parts }] };
  assert.equal((await post("/snapshots/before/upload", plan)).statusCode, 200);
  assert.equal(seen, 4000);
  assert.equal((await post("/machines/web/fork", { id_prefix: "x".repeat(2 ** 20) })).statusCode, 413);
});

test("a snapshot says which memory it shall hold, and a machine which hardware it has", async () => {
  const asked: object[] = [];
  await using api = await apiOn({
    snapshot: async (_id, request) => {
      await Promise.resolve();
      asked.push(request);
      return { ...snapshot, memory: "diff" };
    },
    create: async (request) => {
      await Promise.resolve();
      asked.push(request);
      return { machine, created: true };
    },
  });
  for (const memory of [true, false, "full", "diff"]) {
    const payload = { snapshot_id: "before", memory };
    const answer = await api.app.inject({ method: "POST", url: "/machines/web/snapshots", payload });
    assert.deepEqual([answer.statusCode, answer.json().snapshot.memory], [201, "diff"]);
    assert.deepEqual(asked.pop(), payload);
  }
  const payload = {
    machine_id: "web",
    rate_limits: {
      disk: { bandwidth: { size: 1048576, refill_time_ms: 100 }, ops: { size: 100, refill_time_ms: 1000 } },
      network_tx: { bandwidth: { size: 1, refill_time_ms: 1, one_time_burst: 5 } },
    },
    cpu_template: "T2",
    huge_pages: "2M",
    smt: true,
    track_dirty_pages: true,
    boot_args: "quiet loglevel=1",
  };
  assert.equal((await api.app.inject({ method: "POST", url: "/machines", payload })).statusCode, 201);
  assert.deepEqual(asked.pop(), payload);
});

const BAD: readonly (readonly [url: string, body: object, field: string])[] = [
  ["/machines", { machine_id: "a", smt: "yes" }, "smt"],
  ["/machines", { machine_id: "a", huge_pages: "1G" }, "huge_pages"],
  ["/machines", { machine_id: "a", cpu_template: "T9" }, "cpu_template"],
  ["/machines", { machine_id: "a", boot_args: "a\nb" }, "boot_args"],
  ["/machines", { machine_id: "a", boot_args: "" }, "boot_args"],
  ["/machines", { machine_id: "a", rate_limits: { cpu: {} } }, "rate_limits.cpu"],
  ["/machines", { machine_id: "a", rate_limits: { disk: {} } }, "rate_limits.disk"],
  [
    "/machines",
    { machine_id: "a", rate_limits: { disk: { ops: { size: 0, refill_time_ms: 1 } } } },
    "rate_limits.disk.ops.size",
  ],
  [
    "/machines",
    { machine_id: "a", rate_limits: { disk: { ops: { size: 1 } } } },
    "rate_limits.disk.ops.refill_time_ms",
  ],
  ["/machines/web/snapshots", { snapshot_id: "s", memory: "most" }, "memory"],
  ["/machines/web/fork", { machine_id: "A" }, "machine_id"],
  ["/machines/web/fork", { count: 0, id_prefix: "a" }, "count"],
  ["/machines/web/fork", { count: 65, id_prefix: "a" }, "count"],
  ["/machines/web/fork", { count: 2, id_prefix: "-a" }, "id_prefix"],
  ["/machines/web/fork", { machine_id: "a", memory_mib: 64 }, "memory_mib"],
  ["/snapshots/s/upload", { artifacts: [] }, "artifacts"],
  ["/snapshots/s/upload", {}, "artifacts"],
  [
    "/snapshots/s/upload",
    { artifacts: [{ ...PLAN.artifacts[0], parts: [{ ...PART, upload_url: "file:///etc/passwd" }] }] },
    "artifacts.0.parts.0.upload_url",
  ],
  [
    "/snapshots/s/upload",
    { artifacts: [{ ...PLAN.artifacts[0], parts: [{ ...PART, part_number: 0 }] }] },
    "artifacts.0.parts.0.part_number",
  ],
];

test("a malformed body is answered 400, names the field and never reaches the host", async (t) => {
  // A host without calls: whatever reached it would be answered 500.
  await using api = await apiOn({});
  for (const [url, payload, field] of BAD) {
    await t.test(`${url} ${JSON.stringify(payload)}`, async () => {
      const { statusCode, payload: text } = await api.app.inject({ method: "POST", url, payload });
      const answer = JSON.parse(text);
      assert.deepEqual([statusCode, answer.code, answer.details?.field], [400, "bad_request", field]);
    });
  }
});

test("the new paths refuse the methods that they do not offer", async () => {
  await using api = await apiOn({});
  for (const [method, url, allow] of [
    ["GET", "/machines/web/fork", "POST"],
    ["POST", "/snapshots/s/compatibility", "GET"],
    ["GET", "/snapshots/s/upload", "POST"],
    ["PUT", "/snapshots/s/artifacts/disk", "GET, HEAD"],
  ] as const) {
    const { statusCode, headers } = await api.app.inject({ method, url });
    assert.deepEqual([statusCode, headers.allow], [405, allow], `${method} ${url}`);
  }
});
