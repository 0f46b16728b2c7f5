import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Client } from "undici";
import { exchange, expectBody, expectDone, expectFault, type Answer } from "./support/api.ts";
import { Vmm } from "./support/vmm.ts";
import { waitFor } from "./support/wait.ts";

/**
 * Firecracker's HTTP layer answers what it cannot parse in a shape of its own: `{ "error": "…` with a raw
 * line feed in the string, which is not JSON.
 */
function expectHttpError(answer: Pick<Answer, "status" | "text">): void {
  assert.equal(answer.status, 400, answer.text);
  assert.match(answer.text, /^\{ "error": ".+\nAll previous unanswered requests will be dropped\." \}$/s);
  assert.throws(() => JSON.parse(answer.text) as unknown, SyntaxError);
}

test("every answer says that it is JSON and who gave it", async () => {
  await using vmm = await Vmm.start();
  for (const answer of [await vmm.call("GET", "/"), await vmm.call("GET", "/nowhere")]) {
    assert.equal(answer.headers["content-type"], "application/json");
    assert.equal(answer.headers["server"], "Firecracker API");
    assert.equal(answer.headers["content-length"], String(Buffer.byteLength(answer.text)));
  }
});

describe("a request that is no call of the API is a fault", () => {
  const refused: [string, string, string, unknown][] = [
    ["an unknown path", "GET", "/nowhere", undefined],
    ["an unknown path with a body", "PUT", "/nowhere", {}],
    ["a path that takes no GET", "GET", "/actions", undefined],
    ["a path that takes no PUT", "PUT", "/version", {}],
    ["a path that takes no PATCH", "PATCH", "/boot-source", {}],
    ["a path that takes no DELETE", "DELETE", "/machine-config", undefined],
    ["a GET with a body", "GET", "/version", {}],
    ["a PUT without a body", "PUT", "/machine-config", undefined],
    ["a PATCH without a body", "PATCH", "/machine-config", undefined],
    ["an empty object where fields are needed", "PUT", "/machine-config", {}],
    ["broken JSON", "PUT", "/machine-config", '{"vcpu_count": 1,'],
    ["JSON with more behind it", "PUT", "/machine-config", '{"vcpu_count":1,"mem_size_mib":128} x'],
    ["a field given twice", "PUT", "/machine-config", '{"vcpu_count":1,"vcpu_count":2,"mem_size_mib":128}'],
    ["a bare string", "PUT", "/machine-config", '"hello"'],
    ["a snapshot call that is none", "PUT", "/snapshot/destroy", {}],
    ["a snapshot call without its name", "PUT", "/snapshot", {}],
  ];
  let vmm: Vmm;
  before(async () => (vmm = await Vmm.start()));
  after(async () => await vmm[Symbol.asyncDispose]());
  for (const [name, method, path, body] of refused) {
    test(name, async () => {
      expectFault(await vmm.call(method, path, body));
      expectBody(await vmm.call("GET", "/"));
    });
  }
});

describe("a request that is not understood as HTTP is an error in its own shape", () => {
  for (const method of ["POST", "OPTIONS", "HEADLESS"]) {
    test(`the method ${method}`, async () => {
      await using vmm = await Vmm.start();
      const bytes = `${method} / HTTP/1.1\r\n\r\n`;
      const received = await exchange(vmm.socket, bytes, (text) => text.includes('dropped." }'));
      const [head = "", ...body] = received.split("\r\n\r\n");
      expectHttpError({ status: Number(head.split(" ")[1]), text: body.join("\r\n\r\n") });
      expectBody(await vmm.call("GET", "/"));
    });
  }
  test("a body over 51,200 bytes, while one of exactly that many is read", async () => {
    await using vmm = await Vmm.start();
    const padded = (bytes: number) => `{"a":"${"a".repeat(bytes - 8)}"}`;
    expectDone(await vmm.call("PUT", "/mmds", padded(51_200)));
    expectHttpError(await vmm.call("PUT", "/mmds", padded(51_201)));
    expectBody(await vmm.call("GET", "/"));
  });
  test("a body over the limit that --http-api-max-payload-size sets", async () => {
    await using vmm = await Vmm.start({ args: ["--http-api-max-payload-size", "100"] });
    const body = { vcpu_count: 1, mem_size_mib: 128 };
    expectDone(await vmm.call("PUT", "/machine-config", body));
    expectHttpError(await vmm.call("PUT", "/machine-config", `${JSON.stringify(body)}${" ".repeat(100)}`));
  });
  test("HTTP of no known version", async () => {
    await using vmm = await Vmm.start();
    const received = await exchange(vmm.socket, "GET / HTTP/9.9\r\n\r\n", (text) =>
      text.includes('dropped." }'),
    );
    assert.match(received, /^HTTP\/1\.1 400 /);
  });
});

test("one connection carries many calls, faults among them", async () => {
  await using vmm = await Vmm.start();
  const client = new Client("http://localhost", { socketPath: vmm.socket, pipelining: 1 });
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => client.destroy());
  let connections = 0;
  client.on("connect", () => (connections += 1));
  for (const [path, status] of [
    ["/", 200],
    ["/nowhere", 400],
    ["/version", 200],
    ["/machine-config", 200],
  ] as const) {
    const answer = await client.request({ method: "GET", path });
    assert.equal(answer.statusCode, status);
    await answer.body.text();
  }
  const put = await client.request({ method: "PUT", path: "/entropy", body: "{}" });
  assert.equal(put.statusCode, 204);
  assert.equal(await put.body.text(), "");
  assert.equal(connections, 1);
});

test("the end of a VMM ends its connections", async () => {
  await using vmm = await Vmm.start();
  const client = new Client("http://localhost", { socketPath: vmm.socket });
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => client.destroy());
  let disconnected = false;
  client.on("disconnect", () => (disconnected = true));
  await (await client.request({ method: "GET", path: "/" })).body.text();
  process.kill(vmm.pid, "SIGKILL");
  await waitFor("the end of the connection", () => disconnected, 5_000);
});

test("a trailing slash changes nothing", async () => {
  await using vmm = await Vmm.start();
  expectBody(await vmm.call("GET", "/version/"));
  expectBody(await vmm.call("GET", "/machine-config/"));
});
