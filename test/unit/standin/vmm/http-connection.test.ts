import assert from "node:assert/strict";
import { test } from "node:test";

import { array, assert as check, nat, property } from "fast-check";

import {
  formatResponse,
  HttpError,
  httpErrorResponse,
  RequestParser,
} from "../../../../src/standin/vmm/http-connection.ts";

const TWO =
  "PUT /a HTTP/1.1\r\nContent-Length: 3\r\nAccept: */*\r\n\r\nabcGET http://host/b HTTP/1.0\r\n\r\n";

test("requests are found however the bytes are cut", () => {
  check(
    property(array(nat(TWO.length), { maxLength: 5 }), (cuts) => {
      const parser = new RequestParser(100);
      const edges = [0, ...cuts.toSorted((a, b) => a - b), TWO.length];
      const parsed = edges
        .slice(1)
        .flatMap((edge, index) => parser.push(Buffer.from(TWO.slice(edges[index], edge))));
      assert.deepEqual(parsed, [
        { kind: "request", request: { method: "PUT", path: "/a", body: "abc" } },
        { kind: "request", request: { method: "GET", path: "/b", body: undefined } },
      ]);
    }),
  );
});

test("a client that waits for a go-ahead gets one", () => {
  const parser = new RequestParser(100);
  const head = "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
  assert.deepEqual(parser.push(Buffer.from(head)), [{ kind: "continue" }]);
  assert.equal(parser.push(Buffer.from("x")).length, 1);
});

for (const [name, bytes, words] of [
  ["an unknown method", "POST / HTTP/1.1\r\n\r\n", "Invalid HTTP Method: Unsupported HTTP method."],
  ["a version of its own", "GET / HTTP/2\r\n\r\n", "Invalid HTTP Version: Unsupported HTTP version."],
  ["a line that is none", "GET\r\n\r\n", "Invalid request."],
  ["a line without end", "G".repeat(1024), "Invalid request."],
  [
    "a body beyond the limit",
    "PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
    "Request payload with size 101 is larger than the limit of 100 allowed by server.",
  ],
  [
    "a length that is no number",
    "PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    "Invalid header. Reason: Invalid value. Key:Content-Length; Value: x",
  ],
] as const) {
  test(`${name} is refused, and the connection goes on`, () => {
    const parser = new RequestParser(100);
    assert.throws(() => parser.push(Buffer.from(bytes)), { name: "HttpError", message: words });
    assert.equal(parser.push(Buffer.from("GET / HTTP/1.1\r\n\r\n")).length, 1);
  });
}

test("answers have Firecracker's bytes", () => {
  assert.equal(
    formatResponse({ status: 204 }),
    "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n",
  );
  assert.equal(
    formatResponse({ status: 200, body: "é", deprecated: true }),
    "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nDeprecation: true\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\né",
  );
});

test("an error of HTTP holds a raw newline, as Firecracker's does", () => {
  const { body = "" } = httpErrorResponse(new HttpError("Invalid request."));
  assert.equal(body, '{ "error": "Invalid request.\nAll previous unanswered requests will be dropped." }');
  assert.throws(() => JSON.parse(body));
});
