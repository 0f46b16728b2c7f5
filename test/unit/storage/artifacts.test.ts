import assert from "node:assert/strict";
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { StorageOptions } from "../../../src/storage/storage.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { type FileServer, startFileServer } from "./file-server.ts";
import { type Place, fakeKernel, fakeRootfs, openStorage, sha256 } from "./support.ts";

const MIB = 1024 * 1024;

async function setUp(
  t: TestContext,
  artifacts: NonNullable<StorageOptions["artifacts"]> = {},
): Promise<
  Place & {
    server: FileServer;
    kernel: Buffer;
    rootfs: Buffer;
    artifact: { kernel_image_url: string; rootfs_url: string };
  }
> {
  const place = await openStorage(t, { artifacts: { backoffMs: 5, ...artifacts } });
  const server = await startFileServer(t);
  const kernel = fakeKernel();
  const rootfs = fakeRootfs();
  server.files.set("/kernel", { body: kernel, etag: '"k1"' });
  server.files.set("/rootfs", { body: rootfs, etag: '"r1"' });
  const artifact = { kernel_image_url: `${server.url}/kernel`, rootfs_url: `${server.url}/rootfs` };
  return { ...place, server, kernel, rootfs, artifact };
}

const ofRootfs = (server: FileServer): string[] =>
  server.requests.filter((request) => request.includes("rootfs"));

test("an artifact is fetched into the store under its digest, with its holes, and booted with our initrd", async (t) => {
  const { storage, root, kernel, rootfs, artifact } = await setUp(t);
  const image = await storage.fetchImage(artifact);
  assert.equal(image.kernel_sha256, sha256(kernel));
  assert.equal(image.rootfs_sha256, sha256(rootfs));
  assert.equal(image.rootfs_url, artifact.rootfs_url);
  assert.equal(image.default_user, "root");
  const files = await storage.imageFiles(image);
  assert.deepEqual(await readFile(files.rootfs), rootfs);
  const { blocks, mode } = await stat(files.rootfs);
  assert.ok(blocks * 512 < rootfs.length / 4);
  assert.equal(mode & 0o777, 0o444);
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

test("with digests that the store has, nobody is asked", async (t) => {
  const { storage, server, kernel, rootfs, artifact } = await setUp(t);
  const image = await storage.fetchImage(artifact);
  server.files.clear();
  const before = server.requests.length;
  const named = { ...artifact, kernel_sha256: sha256(kernel), rootfs_sha256: sha256(rootfs) };
  assert.deepEqual(await storage.fetchImage(named), image);
  assert.equal(server.requests.length, before);
});

test("without a digest the server is asked whether it is still the same file, and only a new one is fetched", async (t) => {
  const { storage, server, artifact } = await setUp(t);
  const first = await storage.fetchImage(artifact);
  assert.deepEqual(await storage.fetchImage(artifact), first);
  assert.deepEqual(ofRootfs(server), ["GET /rootfs", 'GET /rootfs "r1"']);
  const changed = fakeRootfs();
  server.files.set("/rootfs", { body: changed, etag: '"r2"' });
  assert.equal((await storage.fetchImage(artifact)).rootfs_sha256, sha256(changed));
});

test("a transfer that breaks goes on where it broke", async (t) => {
  const { storage, server, rootfs, artifact } = await setUp(t);
  server.files.set("/rootfs", { body: rootfs, etag: '"r1"', breakAfter: MIB, breaks: 3 });
  assert.equal((await storage.fetchImage(artifact)).rootfs_sha256, sha256(rootfs));
  const requests = ofRootfs(server);
  assert.equal(requests.length, 4);
  assert.ok(
    requests.slice(1).every((request) => /bytes=[1-9]\d*-/.test(request)),
    requests.join("; "),
  );
});

test("a file that changed while its transfer was broken is fetched from its start", async (t) => {
  const { storage, server, rootfs, artifact } = await setUp(t);
  server.files.set("/rootfs", { body: rootfs, etag: '"r1"', breakAfter: MIB, breaks: 1 });
  const changed = fakeRootfs(3 * MIB);
  const swap = setInterval(() => {
    if (ofRootfs(server).length === 1) server.files.set("/rootfs", { body: changed, etag: '"r2"' });
  }, 1);
  t.after(() => clearInterval(swap));
  const image = await storage.fetchImage(artifact);
  assert.ok(
    [sha256(changed), sha256(rootfs)].includes(image.rootfs_sha256),
    "one of the two, never a mixture",
  );
  assert.equal(sha256(await readFile((await storage.imageFiles(image)).rootfs)), image.rootfs_sha256);
});

test("a server that cannot resume, or says nothing of versions, is asked for the whole again", async (t) => {
  const { storage, server, rootfs, artifact } = await setUp(t);
  server.files.set("/rootfs", { body: rootfs, etag: '"r1"', breakAfter: MIB, breaks: 1, ignoresRange: true });
  assert.equal((await storage.fetchImage(artifact)).rootfs_sha256, sha256(rootfs));
  const other = fakeRootfs();
  server.files.set("/rootfs", { body: other, breakAfter: MIB, breaks: 1, chunked: true });
  assert.equal((await storage.fetchImage(artifact)).rootfs_sha256, sha256(other));
  assert.ok(
    !ofRootfs(server)
      .slice(2)
      .some((request) => request.includes("bytes=")),
  );
});

test("a busy server is asked again; one that stays broken is artifact_unavailable, and nothing is left", async (t) => {
  const { storage, root, server, rootfs, artifact } = await setUp(t);
  server.files.set("/rootfs", { body: rootfs, busy: 2 });
  await storage.fetchImage(artifact);
  server.files.set("/rootfs", { body: fakeRootfs(), breakAfter: 1000, breaks: 1000 });
  await assert.rejects(storage.fetchImage(artifact), { code: "artifact_unavailable" });
  server.files.delete("/rootfs");
  const before = ofRootfs(server).length;
  await assert.rejects(storage.fetchImage(artifact), {
    code: "artifact_unavailable",
    message: /answers 404/,
  });
  assert.equal(ofRootfs(server).length, before + 1, "a plain no is not asked again");
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

test("creates at the same time share one transfer", async (t) => {
  const { storage, server, artifact } = await setUp(t);
  await Promise.all(Array.from({ length: 6 }, () => storage.fetchImage(artifact)));
  assert.equal(ofRootfs(server).length, 1);
});

test("a file with another digest, or that is not what it should be, never enters the store", async (t) => {
  const { storage, root, server, artifact } = await setUp(t);
  const wrong = { ...artifact, rootfs_sha256: "0".repeat(64) };
  await assert.rejects(storage.fetchImage(wrong), {
    code: "image_invalid",
    message: /not 0{64} as it should/,
  });
  const page = Buffer.from("<!doctype html>");
  server.files.set("/rootfs", { body: page });
  await assert.rejects(storage.fetchImage(artifact), { code: "image_invalid", message: /HTML/ });
  const names = await readdir(join(root, "images"));
  assert.ok(!names.includes(sha256(page)));
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

test("a signature in a URL's query reaches the server and no error", async (t) => {
  const { storage, server, rootfs, artifact } = await setUp(t);
  server.files.set("/rootfs?sig=SECRET", { body: rootfs, etag: '"r1"' });
  const signed = { ...artifact, rootfs_url: `${artifact.rootfs_url}?sig=SECRET` };
  await assert.rejects(storage.fetchImage({ ...signed, rootfs_sha256: "0".repeat(64) }), (error: Error) => {
    assert.match(error.message, /\/rootfs has the SHA-256/);
    assert.doesNotMatch(error.message, /SECRET/);
    return true;
  });
  assert.match(ofRootfs(server).join(), /sig=SECRET/);
});

test("a file that is too large is refused, whether its length is told or not", async (t) => {
  const { storage, server, rootfs, artifact } = await setUp(t, { maxBytes: MIB });
  await assert.rejects(storage.fetchImage(artifact), {
    code: "artifact_refused",
    message: /larger than 1048576/,
  });
  server.files.set("/rootfs", { body: rootfs, chunked: true });
  await assert.rejects(storage.fetchImage(artifact), {
    code: "artifact_refused",
    message: /larger than 1048576/,
  });
});

test("a transfer that does not end is ended, and so is one that nobody waits for", async (t) => {
  const { storage, root, server, rootfs, artifact } = await setUp(t, { timeoutMs: 400 });
  server.files.set("/rootfs", { body: rootfs, stallAfter: 1000 });
  await assert.rejects(storage.fetchImage(artifact), { code: "artifact_unavailable", message: /within/ });
  const reason = new Error("the machine was deleted");
  await assert.rejects(storage.fetchImage(artifact, AbortSignal.abort(reason)), reason);
  const controller = new AbortController();
  const fetching = storage.fetchImage(artifact, controller.signal);
  setTimeout(() => controller.abort(reason), 50);
  await assert.rejects(fetching, reason);
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

test("redirects are followed a few times", async (t) => {
  const { storage, server, rootfs, artifact } = await setUp(t);
  server.files.set("/moved", { body: rootfs, redirect: "/rootfs" });
  const image = await storage.fetchImage({ ...artifact, rootfs_url: `${server.url}/moved` });
  assert.equal(image.rootfs_sha256, sha256(rootfs));
  server.files.set("/loop", { body: rootfs, redirect: "/loop" });
  await assert.rejects(storage.fetchImage({ ...artifact, rootfs_url: `${server.url}/loop` }), {
    code: "artifact_unavailable",
    message: /more than 5 times/,
  });
  server.files.set("/local", { body: rootfs, redirect: "file:///etc/passwd" });
  await assert.rejects(storage.fetchImage({ ...artifact, rootfs_url: `${server.url}/local` }), {
    code: "artifact_refused",
  });
});

test("a server outside cannot redirect into the host's networks, by address or by name; one inside can", async (t) => {
  // 127.0.0.2 stands for the inside here, so that both sides are on this machine.
  const { storage, server, rootfs, artifact } = await setUp(t, {
    isInside: (address) => address !== "127.0.0.1",
  });
  const inner = await startFileServer(t, "127.0.0.2");
  inner.files.set("/rootfs", { body: rootfs, etag: '"r1"' });
  server.files.set("/to-address", { body: rootfs, redirect: `${inner.url}/rootfs` });
  await assert.rejects(storage.fetchImage({ ...artifact, rootfs_url: `${server.url}/to-address` }), {
    code: "artifact_refused",
    message: /inside the host's networks/,
  });
  assert.deepEqual(inner.requests, []);
  const image = await storage.fetchImage({ ...artifact, rootfs_url: `${inner.url}/rootfs` });
  assert.equal(image.rootfs_sha256, sha256(rootfs), "the client itself may lead anywhere");
  inner.files.set("/on", { body: rootfs, redirect: `${inner.url}/rootfs` });
  await storage.fetchImage({ ...artifact, rootfs_url: `${inner.url}/on` });
});

test("a name is judged by the addresses it stands for", async (t) => {
  const { storage, server, rootfs, artifact } = await setUp(t, {
    isInside: (address) => address !== "127.0.0.2",
  });
  const outer = await startFileServer(t, "127.0.0.2");
  outer.files.set("/to-name", {
    body: rootfs,
    redirect: `${server.url.replace("127.0.0.1", "localhost")}/rootfs`,
  });
  await assert.rejects(
    storage.fetchImage({ kernel_image_url: artifact.kernel_image_url, rootfs_url: `${outer.url}/to-name` }),
    { code: "artifact_refused", message: /inside the host's networks/ },
  );
  assert.deepEqual(ofRootfs(server), []);
});

for (const url of [
  "ftp://127.0.0.1/rootfs",
  "data:,x",
  "http://user:secret@127.0.0.1/rootfs",
  "rootfs",
  "file://elsewhere/rootfs",
]) {
  test(`${url} is refused`, async (t) => {
    const { storage, artifact } = await setUp(t);
    await assert.rejects(storage.fetchImage({ ...artifact, rootfs_url: url }), { code: "artifact_refused" });
  });
}
