import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { AppError } from "../../../src/contract/errors.ts";
import { makeServer } from "../../../src/api/server.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

async function makeApi(options: Parameters<typeof makeFakeHost>[0] = {}) {
  const fakes = await makeFakeHost(options);
  const app = await makeServer(fakes.host, pino({ level: "silent" }));
  const call = async (
    method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE",
    url: string,
    payload?: object | string,
  ) => {
    const response = await app.inject({
      method,
      url,
      ...(payload === undefined ? {} : { payload, headers: { "content-type": "application/json" } }),
    });
    return {
      status: response.statusCode,
      headers: response.headers,
      body: response.body === "" ? undefined : response.json(),
    };
  };
  return {
    ...fakes,
    app,
    call,
    [Symbol.asyncDispose]: async () => {
      await app.close();
      await fakes.host.close();
    },
  };
}

test("the calls answer as the contract says", async () => {
  await using api = await makeApi();
  const created = await api.call("POST", "/machines", {
    machine_id: "one",
    guest_config: { hostname: "uno" },
  });
  assert.equal(created.status, 201);
  assert.equal(created.body.machine.phase, "running");
  assert.equal(created.body.machine.hostname, "uno");
  assert.match(String(created.headers["server-timing"]), /\bboot;dur=\d/);
  assert.deepEqual((await api.call("GET", "/machines")).body.machines, [created.body.machine]);
  assert.deepEqual((await api.call("GET", "/machines/one")).body, created.body);
  const snapshot = await api.call("POST", "/machines/one/snapshots", { snapshot_id: "s1" });
  assert.equal(snapshot.status, 201);
  assert.deepEqual(snapshot.body.artifacts, snapshot.body.snapshot.artifacts);
  assert.equal(snapshot.body.snapshot.consistency, "synced");
  assert.deepEqual((await api.call("GET", "/snapshots/s1")).body.snapshot, snapshot.body.snapshot);
  assert.deepEqual((await api.call("GET", "/machines/one/snapshots")).body.snapshots, [
    snapshot.body.snapshot,
  ]);
  const restored = await api.call("POST", "/snapshots/s1/restore", { machine_id: "two" });
  assert.equal(restored.status, 201);
  assert.equal(restored.body.machine.snapshot_id, "s1");
  assert.notEqual(restored.body.machine.guest_machine_id, created.body.machine.guest_machine_id);
  assert.equal((await api.call("POST", "/machines/one/stop")).status, 204);
  assert.equal((await api.call("POST", "/machines/one/stop")).status, 204);
  assert.equal((await api.call("GET", "/machines/one")).body.machine.phase, "stopped");
  const resized = await api.call("POST", "/machines/one/resize", { memory_mib: 256, storage_bytes: 2 ** 30 });
  assert.deepEqual([resized.status, resized.body.machine.memory_mib], [200, 256]);
  const again = await api.call("POST", "/machines/one/start");
  assert.deepEqual([again.status, again.body.machine.phase], [200, "running"]);
  assert.match(String(again.headers["server-timing"]), /\bslot;dur=.*\bready;dur=\d/);
  const paused = await api.call("POST", "/machines/one/pause");
  assert.deepEqual([paused.status, paused.body.machine.paused], [200, true]);
  const resumed = await api.call("POST", "/machines/one/resume");
  assert.deepEqual([resumed.status, resumed.body], [200, again.body]);
  const report = await api.call("GET", "/storage/report");
  assert.equal(report.status, 200);
  assert.deepEqual(
    [report.body.clone_mode, report.body.machines.length, report.body.snapshots[0].id],
    ["reflink", 2, "s1"],
  );
  for (const path of ["/machines/one", "/machines/one", "/machines/two", "/snapshots/s1", "/snapshots/s1"]) {
    assert.equal((await api.call("DELETE", path)).status, 204, path);
  }
  assert.deepEqual((await api.call("GET", "/machines")).body, { machines: [] });
  const health = await api.call("GET", "/health");
  assert.equal(health.status, 200);
  assert.equal(health.body.ok, true);
});

const BAD_CREATES: readonly (readonly [what: string, body: object, field: string])[] = [
  ["no id", {}, "machine_id"],
  ["an id that leaves the folder", { machine_id: ".." }, "machine_id"],
  ["an id with a slash", { machine_id: "a/b" }, "machine_id"],
  ["an id with a capital", { machine_id: "A" }, "machine_id"],
  ["an id of 64 characters", { machine_id: "a".repeat(64) }, "machine_id"],
  ["an id that is a number", { machine_id: 1 }, "machine_id"],
  ["an unknown field", { machine_id: "a", colour: "red" }, "colour"],
  ["an unknown field further down", { machine_id: "a", guest_config: { user: "x" } }, "guest_config.user"],
  ["memory as text", { machine_id: "a", memory_mib: "512" }, "memory_mib"],
  ["too little memory", { machine_id: "a", memory_mib: 1 }, "memory_mib"],
  ["half a processor", { machine_id: "a", vcpus: 0.5 }, "vcpus"],
  ["no processor", { machine_id: "a", vcpus: 0 }, "vcpus"],
  ["a negative disk", { machine_id: "a", storage_bytes: -1 }, "storage_bytes"],
  [
    "a hostname with a line feed",
    { machine_id: "a", guest_config: { hostname: "a\nb" } },
    "guest_config.hostname",
  ],
  [
    "a key with a line feed",
    { machine_id: "a", guest_config: { authorized_keys: ["a\nb"] } },
    "guest_config.authorized_keys.0",
  ],
  [
    "an artifact without a kernel",
    { machine_id: "a", artifact: { rootfs_url: "file:///x" } },
    "artifact.kernel_image_url",
  ],
  [
    "a digest that is none",
    {
      machine_id: "a",
      artifact: { rootfs_url: "file:///x", kernel_image_url: "file:///y", rootfs_sha256: "x" },
    },
    "artifact.rootfs_sha256",
  ],
  ["another word for ready", { machine_id: "a", ready: "soon" }, "ready"],
];

test("a create that is malformed is answered 400, names the field and touches nothing", async (t) => {
  await using api = await makeApi();
  for (const [what, body, field] of BAD_CREATES) {
    await t.test(what, async () => {
      const { status, body: answer } = await api.call("POST", "/machines", body);
      assert.equal(status, 400);
      assert.equal(answer.code, "bad_request");
      assert.equal(answer.details.field, field);
      assert.match(answer.error, new RegExp(field.replaceAll(".", "\\.")));
    });
  }
  assert.deepEqual(api.state.changes, []);
  assert.equal(api.network.held.size, 0);
});

test("paths, methods and bodies that are wrong each get their own answer", async () => {
  await using api = await makeApi();
  const answer = async (...request: Parameters<typeof api.call>) => {
    const { status, body } = await api.call(...request);
    return [status, body.code];
  };
  assert.deepEqual(await answer("GET", "/nowhere"), [404, "route_not_found"]);
  assert.deepEqual(await answer("GET", "/machines/none"), [404, "machine_not_found"]);
  assert.deepEqual(await answer("GET", "/machines/none/snapshots"), [404, "machine_not_found"]);
  assert.deepEqual(await answer("POST", "/machines/none/stop"), [404, "machine_not_found"]);
  for (const verb of ["start", "pause", "resume"]) {
    assert.deepEqual(await answer("POST", `/machines/none/${verb}`), [404, "machine_not_found"]);
    assert.deepEqual(await answer("POST", `/machines/none/${verb}`, { now: true }), [400, "bad_request"]);
    assert.deepEqual(await answer("GET", `/machines/none/${verb}`), [405, "method_not_allowed"]);
  }
  assert.deepEqual(await answer("POST", "/machines/none/resize", { vcpus: 2 }), [404, "machine_not_found"]);
  assert.deepEqual(await answer("POST", "/machines/none/resize", {}), [400, "bad_request"]);
  assert.deepEqual(await answer("POST", "/machines/none/resize", { vcpus: 0 }), [400, "bad_request"]);
  assert.deepEqual(await answer("POST", "/machines/none/resize", { image: "x" }), [400, "bad_request"]);
  assert.deepEqual(await answer("GET", "/snapshots/none"), [404, "snapshot_not_found"]);
  assert.deepEqual(await answer("POST", "/snapshots/none/restore", { machine_id: "a" }), [
    404,
    "snapshot_not_found",
  ]);
  assert.deepEqual(await answer("PUT", "/machines"), [405, "method_not_allowed"]);
  assert.deepEqual(await answer("PATCH", "/machines/a", "{"), [405, "method_not_allowed"]);
  assert.equal((await api.call("PUT", "/machines")).headers.allow, "POST, GET");
  assert.deepEqual(await answer("POST", "/machines", "{"), [400, "bad_json"]);
  assert.deepEqual(await answer("POST", "/machines", `{"machine_id":"a","__proto__":{"x":1}}`), [
    400,
    "bad_json",
  ]);
  assert.deepEqual(await answer("POST", "/machines", ""), [400, "bad_json"]);
  assert.deepEqual(await answer("POST", "/machines", "[]"), [400, "bad_request"]);
  assert.deepEqual(await answer("POST", "/machines", "null"), [400, "bad_request"]);
  assert.deepEqual(await answer("POST", "/machines"), [400, "bad_request"]);
  assert.deepEqual(await answer("POST", "/machines", JSON.stringify("x".repeat(1024 * 1024))), [
    413,
    "body_too_large",
  ]);
  const text = await api.app.inject({
    method: "POST",
    url: "/machines",
    payload: "x",
    headers: { "content-type": "text/plain" },
  });
  assert.deepEqual([text.statusCode, text.json().code], [415, "unsupported_media_type"]);
  for (const path of [
    "/machines/..",
    "/machines/%2e%2e",
    "/machines/a%2fb",
    "/machines/a%00",
    "/machines/%zz",
    "/snapshots/..%2f..%2fetc",
  ]) {
    const { status } = await api.call("DELETE", path);
    assert.ok([400, 404].includes(status), `${path} answered ${status}`);
  }
  assert.deepEqual(api.state.changes, []);
});

test("the same create again is 200 with the machine that is there, another body is 409", async () => {
  await using api = await makeApi();
  const body = {
    machine_id: "one",
    guest_config: { login_webhook: { url: "https://hook.example/x", bearer_token: "first" } },
  };
  const first = await api.call("POST", "/machines", body);
  const again = await api.call("POST", "/machines", {
    vcpus: 1,
    memory_mib: 512,
    image: "debian-slim",
    ready: "ssh",
    ...body,
  });
  assert.deepEqual([first.status, again.status], [201, 200]);
  assert.deepEqual(again.body, first.body);
  const otherToken = {
    ...body,
    guest_config: { login_webhook: { url: "https://hook.example/x", bearer_token: "second" } },
  };
  assert.equal((await api.call("POST", "/machines", otherToken)).status, 200);
  const other = await api.call("POST", "/machines", { ...body, vcpus: 2 });
  assert.deepEqual([other.status, other.body.code], [409, "machine_exists"]);
});

test("what cannot be done is refused, never ignored", async () => {
  await using api = await makeApi();
  await api.call("POST", "/machines", { machine_id: "one" });
  await api.call("POST", "/machines/one/snapshots", { snapshot_id: "s1" });
  const cases: readonly (readonly [string, object, number, string])[] = [
    ["/machines", { machine_id: "a", user_volume_ids: ["v"] }, 422, "not_supported"],
    ["/snapshots/s1/restore", { machine_id: "a", memory: true }, 422, "snapshot_incompatible"],
    ["/machines/one/snapshots", { snapshot_id: "s2", memory: "diff" }, 422, "no_memory_base"],
    [
      "/snapshots/s1/restore",
      { machine_id: "a", local_snapshot: { snapshot_id: "s2" } },
      400,
      "contradiction",
    ],
    ["/snapshots/s1/restore", { machine_id: "a", storage_bytes: 1048576 }, 422, "disk_too_small"],
    ["/machines/one/snapshots", { snapshot_id: "s1" }, 409, "snapshot_exists"],
    ["/machines", { machine_id: "a", image: "nope" }, 422, "image_not_found"],
    [
      "/machines",
      {
        machine_id: "a",
        image: "debian",
        artifact: { kernel_image_url: "http://x/k", rootfs_url: "http://x/r" },
      },
      400,
      "contradiction",
    ],
    ["/machines", { machine_id: "a", memory_mib: 1048576 }, 503, "host_full"],
  ];
  for (const [path, body, status, code] of cases) {
    const answer = await api.call("POST", path, body);
    assert.deepEqual([answer.status, answer.body.code], [status, code], `${path} ${JSON.stringify(body)}`);
  }
  assert.deepEqual(
    (await api.call("GET", "/machines")).body.machines.map(({ id }: { id: string }) => id),
    ["one"],
  );
});

test("what the host ran out of is no bug, however deep it lies", async () => {
  await using api = await makeApi();
  const because = (code: string) => Object.assign(new Error(code), { code });
  const cases: readonly (readonly [error: Error, status: number])[] = [
    [because("ENOSPC"), 507],
    [new AppError("internal", "making the disk failed", { cause: because("EFBIG") }), 507],
    [new Error("nft could not be started", { cause: because("EMFILE") }), 503],
    [new AppError("internal", "outer", { cause: new Error("inner", { cause: because("ENOMEM") }) }), 503],
  ];
  for (const [error, status] of cases) {
    api.storage.failures.set("cloneImageDisk", error);
    assert.equal((await api.call("POST", "/machines", { machine_id: "a" })).status, status, error.message);
  }
});

test("a restore that says memory: false asks for nothing else than one that leaves it out", async () => {
  await using api = await makeApi();
  await api.call("POST", "/machines", { machine_id: "one" });
  await api.call("POST", "/machines/one/snapshots", { snapshot_id: "s1" });
  assert.equal((await api.call("POST", "/snapshots/s1/restore", { machine_id: "a" })).status, 201);
  const again = { machine_id: "a", memory: false, ready: "ssh", guest_config: {} };
  assert.equal((await api.call("POST", "/snapshots/s1/restore", again)).status, 200);
});

test("a bug answers 500 with the request's id and without its words", async () => {
  await using api = await makeApi();
  api.storage.failures.set("localImage", new Error("secret path"));
  const { status, body, headers } = await api.call("POST", "/machines", { machine_id: "a" });
  assert.deepEqual([status, body.code], [500, "internal"]);
  assert.equal(body.details.request_id, headers["x-request-id"]);
  assert.doesNotMatch(JSON.stringify(body), /secret/);
});
