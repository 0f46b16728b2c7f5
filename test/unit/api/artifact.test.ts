import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { get } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../../../src/contract/errors.ts";
import type { Host } from "../../../src/host/host.ts";
import { apiOn } from "./api-on.ts";

const CONTENT = Buffer.from("0123456789abcdef");
const SHA256 = createHash("sha256").update(CONTENT).digest("hex");
const ETAG = `"${SHA256}"`;
const URL_PATH = "/snapshots/s1/artifacts/disk";

/** Files that count how many of them are open. */
class FakeFiles {
  open = 0;
  readonly asked: string[] = [];
  protected size: number;
  readonly #content: Buffer;

  constructor(content = CONTENT) {
    this.#content = content;
    this.size = content.length;
  }

  readonly openArtifact: Host["openArtifact"] = async (snapshotId, artifactId) => {
    await Promise.resolve();
    this.asked.push(`${snapshotId}/${artifactId}`);
    if (artifactId !== "disk") throw new AppError("artifact_not_found", `there is no ${artifactId}`);
    this.open += 1;
    return {
      kind: "disk",
      size_bytes: this.size,
      sha256_hex: SHA256,
      stream: (start, end) => this.stream(start, end),
      [Symbol.asyncDispose]: async () => {
        await Promise.resolve();
        this.open -= 1;
      },
    };
  };

  protected stream(start: number, end: number): Readable {
    return Readable.from([this.#content.subarray(start, end)]);
  }
}

async function settled(files: { open: number }): Promise<void> {
  for (let tries = 0; files.open > 0 && tries < 200; tries += 1) await sleep(5);
  assert.equal(files.open, 0, "the file is still open");
}

async function ask(headers: Record<string, string> = {}, method: "GET" | "HEAD" = "GET", content = CONTENT) {
  const files = new FakeFiles(content);
  await using api = await apiOn({ openArtifact: files.openArtifact });
  const response = await api.app.inject({ method, url: URL_PATH, headers });
  await settled(files);
  return response;
}

test("an artifact comes whole, with its digest as a strong ETag", async () => {
  const { statusCode, headers, rawPayload } = await ask();
  assert.equal(statusCode, 200);
  assert.deepEqual(rawPayload, CONTENT);
  assert.equal(headers.etag, ETAG);
  assert.equal(headers["content-length"], "16");
  assert.equal(headers["content-type"], "application/octet-stream");
  assert.equal(headers["accept-ranges"], "bytes");
  assert.equal(headers["content-range"], undefined);
});

test("HEAD says the same without the bytes, whatever range it names", async () => {
  for (const range of [{}, { range: "bytes=0-3" }, { range: "bytes=99-" }]) {
    const { statusCode, headers, rawPayload } = await ask(range, "HEAD");
    assert.deepEqual([statusCode, headers["content-length"], headers.etag], [200, "16", ETAG]);
    assert.equal(headers["content-type"], "application/octet-stream");
    assert.equal(rawPayload.length, 0);
  }
});

const RANGES: readonly (readonly [range: string, content: string, contentRange: string])[] = [
  ["bytes=0-3", "0123", "bytes 0-3/16"],
  ["bytes=15-15", "f", "bytes 15-15/16"],
  ["bytes=4-", "456789abcdef", "bytes 4-15/16"],
  ["bytes=4-999999999999999999999999", "456789abcdef", "bytes 4-15/16"],
  ["bytes=-4", "cdef", "bytes 12-15/16"],
  ["bytes=-99", "0123456789abcdef", "bytes 0-15/16"],
  ["Bytes=1-1", "1", "bytes 1-1/16"],
];

test("one range of bytes comes as 206", async () => {
  for (const [range, content, contentRange] of RANGES) {
    const { statusCode, headers, payload } = await ask({ range });
    assert.deepEqual([statusCode, payload, headers["content-range"]], [206, content, contentRange], range);
    assert.equal(headers["content-length"], String(content.length));
    assert.equal(headers.etag, ETAG);
  }
});

test("several ranges, other units and ranges that are none are answered with the whole", async () => {
  for (const range of [
    "bytes=0-1,4-5",
    "lines=0-1",
    "bytes=5-2",
    "bytes=-",
    "bytes=a-b",
    "0-3",
    "bytes=1-2x",
  ]) {
    const { statusCode, payload, headers } = await ask({ range });
    assert.deepEqual([statusCode, payload], [200, CONTENT.toString()], range);
    assert.equal(headers["content-range"], undefined);
  }
});

test("a range outside of the artifact is 416 and says how long it is", async () => {
  for (const range of ["bytes=16-", "bytes=16-20", "bytes=-0"]) {
    const response = await ask({ range });
    assert.equal(response.statusCode, 416, range);
    assert.equal(response.headers["content-range"], "bytes */16");
    assert.equal(response.json().code, "range_not_satisfiable");
  }
});

test("an empty artifact has no range but its end", async () => {
  const empty = Buffer.alloc(0);
  const whole = await ask({}, "GET", empty);
  assert.deepEqual([whole.statusCode, whole.headers["content-length"], whole.payload], [200, "0", ""]);
  assert.equal((await ask({ range: "bytes=-5" }, "GET", empty)).statusCode, 200);
  assert.equal((await ask({ range: "bytes=0-" }, "GET", empty)).statusCode, 416);
});

test("who has it already is told so and gets nothing", async () => {
  for (const tags of [ETAG, `W/${ETAG}`, `"other", ${ETAG}`, "*"]) {
    for (const method of ["GET", "HEAD"] as const) {
      const { statusCode, rawPayload, headers } = await ask(
        { "if-none-match": tags, range: "bytes=0-1" },
        method,
      );
      assert.deepEqual([statusCode, rawPayload.length, headers.etag], [304, 0, ETAG], tags);
    }
  }
  assert.equal((await ask({ "if-none-match": '"other"' })).statusCode, 200);
});

test("a range is for the artifact that the client began with, and for no other", async () => {
  const range = "bytes=0-3";
  assert.equal((await ask({ range, "if-range": ETAG })).statusCode, 206);
  for (const ifRange of ['"other"', `W/${ETAG}`, "Wed, 21 Oct 2015 07:28:00 GMT"]) {
    const { statusCode, payload } = await ask({ range, "if-range": ifRange });
    assert.deepEqual([statusCode, payload], [200, CONTENT.toString()], ifRange);
  }
});

test("an artifact that is not there, and a path that is none, are refused", async () => {
  const files = new FakeFiles();
  await using api = await apiOn({ openArtifact: files.openArtifact });
  const missing = await api.app.inject({ url: "/snapshots/s1/artifacts/memory" });
  assert.deepEqual([missing.statusCode, missing.json().code], [404, "artifact_not_found"]);
  assert.equal((await api.app.inject({ url: "/snapshots/S1/artifacts/disk" })).statusCode, 400);
  assert.equal((await api.app.inject({ method: "DELETE", url: URL_PATH })).statusCode, 405);
  assert.deepEqual(files.asked, ["s1/memory"]);
});

/** A file without an end, which knows how much of it was read. */
class EndlessFiles extends FakeFiles {
  pulled = 0;
  protected override size = 2 ** 40;

  protected override stream(): Readable {
    const pulled = (size: number): void => void (this.pulled += size);
    return new Readable({
      // As with a file that is not the stream's own to close: its end alone closes nothing.
      autoDestroy: false,
      read(size) {
        pulled(size);
        this.push(Buffer.alloc(size));
      },
    });
  }
}

test("a client sets the pace, and one that hangs up closes the file", async () => {
  const files = new EndlessFiles();
  await using api = await apiOn({ openArtifact: files.openArtifact });
  await api.app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = api.app.server.address() as AddressInfo;
  const request = get({ host: "127.0.0.1", port, path: URL_PATH, agent: false });
  const [response] = (await once(request, "response")) as [Readable];
  await once(response, "readable");
  let before = -1;
  while (before !== files.pulled) {
    before = files.pulled;
    await sleep(50);
  }
  assert.ok(files.pulled < 64 * 2 ** 20, `${files.pulled} bytes were read for a client that reads none`);
  assert.equal(files.open, 1);
  request.destroy();
  await settled(files);
});

/** A file whose disk fails behind its first bytes. */
class BrokenFiles extends FakeFiles {
  protected override stream(): Readable {
    return Readable.from(
      (async function* broken() {
        yield CONTENT.subarray(0, 4);
        await sleep(20);
        throw new Error("input/output error");
      })(),
    );
  }
}

test("a file that breaks off in the middle ends the connection, so that it is not taken for the whole", async () => {
  const files = new BrokenFiles();
  await using api = await apiOn({ openArtifact: files.openArtifact });
  await api.app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = api.app.server.address() as AddressInfo;
  await assert.rejects(async () => {
    const response = await fetch(`http://127.0.0.1:${port}${URL_PATH}`);
    await response.arrayBuffer();
  });
  await settled(files);
});
