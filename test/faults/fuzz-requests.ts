import fc from "fast-check";
import { CALLS } from "./fuzz-bodies.ts";

/** A request as its bytes. */
export function requestText(
  method: string,
  target: string,
  headers: readonly string[],
  body?: string,
): string {
  const length = body === undefined ? [] : [`content-length: ${Buffer.byteLength(body)}`];
  const lines = [`${method} ${target} HTTP/1.1`, "host: x", "connection: close", ...headers, ...length];
  return `${lines.join("\r\n")}\r\n\r\n${body ?? ""}`;
}

export const JSON_TYPE = "content-type: application/json";

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

/** Requests of the contract with hostile ids, headers, methods and bodies. */
export const requests = fc
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

/** What must never be taken for a request of its own. */
export const DELETE_ONE = "DELETE /machines/one HTTP/1.1\r\nhost: x\r\n\r\n";

/** Bytes that are no request, or that two readers could take for different ones. None may delete machine `one`. */
export const NONSENSE: readonly string[] = [
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

/** Requests that are refused, broken byte by byte, and bytes of chance. */
export const rawBytes = fc.oneof(
  { weight: 4, arbitrary: broken },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)) },
);
