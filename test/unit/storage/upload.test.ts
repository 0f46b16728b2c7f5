import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { open, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../../../src/contract/errors.ts";
import type { UploadSnapshot } from "../../../src/contract/snapshot.ts";
import type { ReadableFile } from "../../../src/storage/types.ts";
import { upload } from "../../../src/storage/upload.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { type PartStore, startPartStore } from "./part-store.ts";
import { MIB } from "./snapshot-support.ts";
import {
  S,
  STALLED_STORE,
  kindOf,
  noMoreDescriptorsThan,
  openDescriptors,
  planFor,
  withSnapshot,
} from "./travel-support.ts";

const md5 = (bytes: Uint8Array): string => createHash("md5").update(bytes).digest("hex");

/** The plan with its artifacts of these kinds alone. */
function only(plan: UploadSnapshot, ...kinds: string[]): UploadSnapshot {
  return { artifacts: plan.artifacts.filter(({ artifact_id }) => kinds.includes(kindOf(artifact_id) ?? "")) };
}

async function objectOf(store: PartStore, object: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of store.read(object)) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function failure(work: Promise<unknown>): Promise<AppError> {
  const error = await work.then(
    () => assert.fail("it did not fail"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof AppError, String(error));
  assert.doesNotMatch(`${error.message} ${JSON.stringify(error.details)}`, /secret|Signature/);
  return error;
}

test("each part goes to its own URL with its length, four at a time, and its ETag comes back as it was written", async (t) => {
  const { storage, root, store, taken } = await withSnapshot(t);
  const before = await openDescriptors();
  const plan = planFor(taken, store);
  for (let number = 1; number <= 6; number += 1) store.trouble(`PUT /parts/memory/${number}`, { slowMs: 5 });
  const { artifacts } = await storage.uploadArtifacts(S, plan, kindOf);
  assert.equal(store.mostAtOnce, 4);
  assert.deepEqual(
    artifacts.map(({ artifact_id }) => artifact_id),
    plan.artifacts.map(({ artifact_id }) => artifact_id),
  );
  for (const { artifact_id, completed_parts } of artifacts)
    store.complete(kindOf(artifact_id) ?? "", completed_parts);
  const memory = await readFile(join(root, "snapshots", S, "memory.img"));
  assert.ok(memory.equals(await objectOf(store, "memory")));
  assert.deepEqual(artifacts[1]?.completed_parts[5], {
    part_number: 6,
    etag: `"${md5(memory.subarray(15 * MIB))}"`,
  });
  const request = store.requests.find(({ path }) => path === "/parts/memory/6");
  assert.equal(request?.query, "?partNumber=6&X-Amz-Signature=secret");
  assert.deepEqual(Object.keys(request.headers).sort(), ["connection", "content-length", "host"]);
  assert.equal(request.headers["content-length"], String(MIB));
  assert.deepEqual((await readdir(join(root, "snapshots", S))).length, 5);
  await noMoreDescriptorsThan(before);
});

test("parts may come in any order of the plan, and are sent and told by their numbers", async (t) => {
  const { storage, store, taken } = await withSnapshot(t);
  const [memory] = only(planFor(taken, store), "memory").artifacts;
  assert.ok(memory !== undefined);
  const shuffled = { artifacts: [{ ...memory, parts: memory.parts.toReversed() }] };
  const { artifacts } = await storage.uploadArtifacts(S, shuffled, kindOf);
  store.complete("memory", artifacts[0]?.completed_parts ?? []);
});

test("an empty artifact is one part of no bytes", async (t) => {
  const store = await startPartStore(t);
  const file: ReadableFile = {
    size_bytes: 0,
    sha256_hex: "",
    stream: () => assert.fail("there is nothing to stream"),
    [Symbol.asyncDispose]: async () => {},
  };
  const source = { check: async () => {}, open: async () => file };
  const part = (part_number: number) => {
    const upload_url = `${store.url}/parts/empty/${part_number}?X-Amz-Signature=secret`;
    return { part_number, offset_bytes: 0, size_bytes: 0, upload_url };
  };
  const plan = (parts: ReturnType<typeof part>[]): UploadSnapshot => ({
    artifacts: [{ artifact_id: "s.disk", object_key: "k", upload_id: "u", parts }],
  });
  assert.equal((await failure(upload(source, plan([part(1), part(2)]), kindOf, {}))).code, "bad_request");
  const { artifacts } = await upload(source, plan([part(1)]), kindOf, {});
  store.complete("empty", artifacts[0]?.completed_parts ?? []);
  assert.equal(store.requests[0]?.headers["content-length"], "0");
});

test("a plan that does not cover each artifact exactly is refused by its field before a byte leaves", async (t) => {
  const { storage, store, taken } = await withSnapshot(t);
  const plan = planFor(taken, store);
  const size = taken.memory?.size_bytes ?? 0;
  type Part = UploadSnapshot["artifacts"][number]["parts"][number];
  const withParts = (change: (parts: Part[]) => Part[]): UploadSnapshot => ({
    artifacts: plan.artifacts.map((artifact) =>
      artifact.artifact_id === "s.memory" ? { ...artifact, parts: change(artifact.parts) } : artifact,
    ),
  });
  const at = (place: number, change: Partial<Part>): UploadSnapshot =>
    withParts((parts) => parts.map((part, index) => (index === place ? { ...part, ...change } : part)));
  const empty = { part_number: 9, offset_bytes: size, size_bytes: 0, upload_url: `${store.url}/x` };
  const cases: Record<string, [UploadSnapshot, string]> = {
    "a gap": [at(2, { offset_bytes: 6 * MIB + 1 }), "artifacts.1.parts.2.offset_bytes"],
    "an overlap": [at(2, { offset_bytes: 6 * MIB - 1 }), "artifacts.1.parts.2.offset_bytes"],
    "a beginning that is missing": [withParts((parts) => parts.slice(1)), "artifacts.1.parts.0.offset_bytes"],
    "an end that is missing": [withParts((parts) => parts.slice(0, -1)), "artifacts.1.parts"],
    "an end beyond the file's": [at(5, { size_bytes: MIB + 1 }), "artifacts.1.parts"],
    "a number twice": [at(1, { part_number: 1 }), "artifacts.1.parts.1.part_number"],
    "numbers against the order": [at(0, { part_number: 7 }), "artifacts.1.parts.1.offset_bytes"],
    "an empty part": [withParts((parts) => [...parts, empty]), "artifacts.1.parts.6.size_bytes"],
    "an artifact twice": [
      { artifacts: [...plan.artifacts, ...plan.artifacts.slice(0, 1)] },
      "artifacts.4.artifact_id",
    ],
  };
  for (const [name, [wrong, field]] of Object.entries(cases)) {
    const error = await failure(storage.uploadArtifacts(S, wrong, kindOf));
    assert.deepEqual(
      [error.code, error.details?.["field"]],
      ["bad_request", field],
      `${name}: ${error.message}`,
    );
  }
  for (const upload_url of ["file:///tmp/x", "ftp://127.0.0.1/", "http://u:secret@127.0.0.1/", "http://"])
    assert.equal(
      (await failure(storage.uploadArtifacts(S, at(3, { upload_url }), kindOf))).code,
      "artifact_refused",
    );
  const unknown = await failure(storage.uploadArtifacts(S, plan, () => undefined));
  assert.deepEqual([unknown.code, unknown.details], ["artifact_not_found", { artifact_id: "s.disk" }]);
  assert.deepEqual(store.requests, []);
});

test("a damaged file is not sent, and damage elsewhere does not keep a disk from being sent", async (t) => {
  const { storage, root, store, taken } = await withSnapshot(t);
  await using handle = await open(join(root, "snapshots", S, "memory.img"), "r+");
  await handle.write("damage", 5000);
  const plan = planFor(taken, store);
  const error = await failure(storage.uploadArtifacts(S, plan, kindOf));
  assert.deepEqual([error.code, error.details?.["artifact"]], ["snapshot_invalid", "memory"]);
  assert.deepEqual(store.requests, []);
  await storage.uploadArtifacts(S, only(plan, "disk", "manifest"), kindOf);
});

test("a part that fails in passing is sent again, as a whole", async (t) => {
  const { storage, root, store, taken } = await withSnapshot(t);
  const before = await openDescriptors();
  const memory = await readFile(join(root, "snapshots", S, "memory.img"));
  const troubles = [
    { status: 500, times: 3 },
    { status: 503, times: 2 },
    { status: 408 },
    { status: 429 },
    { after: 200_000, times: 3 },
    { after: 200_000, ending: "stall" },
  ] as const;
  for (const trouble of troubles) {
    store.requests.length = 0;
    store.trouble("PUT /parts/memory/2", trouble);
    const plan = only(planFor(taken, store), "memory");
    const { artifacts } = await storage.uploadArtifacts(S, plan, kindOf);
    store.complete("memory", artifacts[0]?.completed_parts ?? []);
    assert.ok(memory.equals(await objectOf(store, "memory")), JSON.stringify(trouble));
    const tries = store.pathsOf("PUT").filter((path) => path === "/parts/memory/2").length;
    assert.equal(tries, 1 + ("times" in trouble ? trouble.times : 1), JSON.stringify(trouble));
  }
  await noMoreDescriptorsThan(before + STALLED_STORE);
});

test("a slow store is waited for as long as it goes on", async (t) => {
  const { storage, store, taken } = await withSnapshot(t, { uploadStallMs: 300 });
  store.trouble("PUT /parts/memory/1", { slowMs: 15 });
  const from = Date.now();
  await storage.uploadArtifacts(S, only(planFor(taken, store), "memory"), kindOf);
  assert.ok(Date.now() - from > 600, `${Date.now() - from} ms`);
});

test("what does not pass is upload_failed, which names the part and keeps the signature", async (t) => {
  const { storage, root, store, taken } = await withSnapshot(t);
  const before = await openDescriptors();
  const cases = [
    { trouble: { status: 403, times: 9 }, tries: 1, status: 403, reason: /answers 403 \(Trouble\)/ },
    { trouble: { status: 400, times: 9 }, tries: 1, status: 400, reason: /400/ },
    { trouble: { status: 502, times: 9 }, tries: 4, status: 502, reason: /502/ },
    { trouble: { after: 100_000, times: 9 }, tries: 4, status: undefined, reason: /./ },
    {
      trouble: { after: 100_000, times: 9, ending: "answer" },
      tries: 1,
      status: 403,
      reason: /AccessDenied/,
    },
    { trouble: { redirect: `${store.url}/elsewhere`, times: 9 }, tries: 1, status: 307, reason: /307/ },
    { trouble: { etag: null, times: 9 }, tries: 1, status: 200, reason: /no ETag/ },
  ] as const;
  for (const { trouble, tries, status, reason } of cases) {
    store.requests.length = 0;
    store.trouble("PUT /parts/memory/3", trouble);
    const error = await failure(storage.uploadArtifacts(S, planFor(taken, store), kindOf));
    assert.equal(error.code, "upload_failed", error.message);
    const { reason: text, ...details } = error.details ?? {};
    const expected = { artifact_id: "s.memory", part_number: 3, ...(status === undefined ? {} : { status }) };
    assert.deepEqual(details, expected);
    assert.match(String(text), reason);
    assert.match(error.message, /memory.*\/parts\/memory\/3/);
    const sent = store.pathsOf("PUT");
    assert.equal(sent.filter((path) => path === "/parts/memory/3").length, tries, error.message);
    assert.ok(!sent.includes("/elsewhere"));
  }
  await storage.checkSnapshot(S, "all");
  assert.deepEqual(await readdir(join(root, "staging")), []);
  await noMoreDescriptorsThan(before);
});

test("the first part that fails ends the others", async (t) => {
  const { storage, store, taken } = await withSnapshot(t, { uploadStallMs: 60_000 });
  store.trouble("PUT /parts/disk/1", { after: 1, ending: "stall" });
  store.trouble("PUT /parts/memory/1", { status: 403 });
  const from = Date.now();
  const error = await failure(storage.uploadArtifacts(S, planFor(taken, store), kindOf));
  assert.equal(error.details?.["artifact_id"], "s.memory");
  assert.ok(Date.now() - from < 5000);
  const sent = store.requests.length;
  await sleep(100);
  assert.equal(store.requests.length, sent);
});

test("a store that is not there is upload_failed after a few tries; an odd ETag is the store's affair", async (t) => {
  const { storage, store, taken } = await withSnapshot(t);
  const plan = only(planFor(taken, store, 64 * MIB), "manifest");
  store.trouble("PUT /parts/manifest/1", { etag: "W/odd" });
  assert.deepEqual(await storage.uploadArtifacts(S, plan, kindOf), {
    artifacts: [{ artifact_id: "s.manifest", completed_parts: [{ part_number: 1, etag: "W/odd" }] }],
  });
  const nowhere = JSON.parse(
    JSON.stringify(plan).replace(/127\.0\.0\.1:\d+/, "127.0.0.1:9"),
  ) as UploadSnapshot;
  const error = await failure(storage.uploadArtifacts(S, nowhere, kindOf));
  assert.equal(error.code, "upload_failed");
  assert.match(String(error.details?.["reason"]), /ECONNREFUSED/);
});

test("an upload that is ended in the middle ends at once, with the reason, and closes everything", async (t) => {
  const { storage, store, taken } = await withSnapshot(t, { uploadStallMs: 60_000 });
  const before = await openDescriptors();
  store.trouble("PUT /parts/memory/2", { after: 200_000, ending: "stall" });
  store.trouble("PUT /parts/disk/1", { status: 503, times: 99 });
  const controller = new AbortController();
  const reason = new Error("enough");
  const uploading = storage.uploadArtifacts(S, planFor(taken, store), kindOf, controller.signal);
  while (!store.pathsOf("PUT").includes("/parts/memory/2")) await sleep(5);
  const from = Date.now();
  controller.abort(reason);
  await assert.rejects(uploading, (error) => error === reason);
  assert.ok(Date.now() - from < 1000);
  const aborted = storage.uploadArtifacts(S, planFor(taken, store), kindOf, AbortSignal.abort(reason));
  await assert.rejects(aborted, (error) => error === reason);
  await noMoreDescriptorsThan(before + STALLED_STORE);
});
