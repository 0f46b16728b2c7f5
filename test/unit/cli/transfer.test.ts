import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { always, type Responder } from "../client/support/socket-server.ts";
import { cli } from "./run.ts";

const CONTENT = Buffer.from("what a guest remembers");
const SHA256 = createHash("sha256").update(CONTENT).digest("hex");

function artifact(sent: Buffer, sha256 = SHA256): Responder {
  return (_request, response) => {
    response.writeHead(200, { etag: `"${sha256}"`, "content-length": CONTENT.length });
    response.write(sent);
    if (sent.length === CONTENT.length) response.end();
    else setTimeout(() => response.destroy(), 20);
  };
}

async function folder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "computer-cli-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

describe("computer download", () => {
  it("writes the file for its owner alone, and says what it is", async () => {
    await using into = await folder();
    const path = join(into.path, "memory.img");
    const { code, out, requests } = await cli(["download", "before", "memory", path], artifact(CONTENT));
    assert.equal(code, 0);
    assert.equal(requests[0]?.path, "/snapshots/before/artifacts/memory");
    assert.deepEqual(await readFile(path), CONTENT);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.equal(out, `${path}: 22 B, sha256 ${SHA256}`);
    assert.deepEqual(await readdir(into.path), ["memory.img"]);
  });

  it("leaves what was there, and nothing else, when the bytes are wrong or break off", async () => {
    await using into = await folder();
    const path = join(into.path, "memory.img");
    await writeFile(path, "before");
    for (const [responder, words] of [
      [artifact(CONTENT, "d".repeat(64)), /not those with the SHA-256 dddd/],
      [artifact(CONTENT.subarray(0, 5)), /connection_lost/],
      [always(404, { error: "No.", code: "artifact_not_found" }), /artifact_not_found/],
    ] as const) {
      const { code, err } = await cli(["download", "before", "memory", path], responder);
      assert.equal(code, 1);
      assert.match(err, words);
      assert.equal(await readFile(path, "utf8"), "before");
      assert.deepEqual(await readdir(into.path), ["memory.img"]);
    }
  });

  it("asks for nothing more when the file cannot be written", async () => {
    const { code, err } = await cli(["download", "before", "memory", "/nowhere/x"], artifact(CONTENT));
    assert.equal(code, 1);
    assert.match(err, /\/nowhere\/x/);
  });
});

describe("computer upload", () => {
  const uploaded = {
    artifacts: [
      {
        artifact_id: "disk",
        completed_parts: [
          { part_number: 1, etag: '"a"' },
          { part_number: 2, etag: '"b"' },
        ],
      },
    ],
  };

  it("sends the plan and prints the parts that were taken", async () => {
    await using at = await folder();
    const path = join(at.path, "plan.json");
    const plan = { artifacts: [{ artifact_id: "disk", object_key: "k", upload_id: "u", parts: [] }] };
    await writeFile(path, JSON.stringify(plan));
    const { code, out, requests } = await cli(["upload", "before", path], always(200, uploaded));
    assert.equal(code, 0);
    assert.equal(requests[0]?.path, "/snapshots/before/upload");
    assert.deepEqual(requests[0]?.body, plan);
    assert.match(out, /^disk +1 +"a"\ndisk +2 +"b"$/m);
    const asJson = await cli(["upload", "before", path, "--json"], always(200, uploaded));
    assert.deepEqual(JSON.parse(asJson.out), uploaded);
  });

  it("refuses a plan that is not JSON, without asking the daemon", async () => {
    await using at = await folder();
    const path = join(at.path, "plan.json");
    await writeFile(path, "{");
    const { code, err, requests } = await cli(["upload", "before", path]);
    assert.equal(code, 2);
    assert.match(err, /plan\.json is not JSON/);
    assert.deepEqual(requests, []);
  });
});
