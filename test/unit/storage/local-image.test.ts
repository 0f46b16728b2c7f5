import assert from "node:assert/strict";
import { readFile, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createStorage } from "../../../src/storage/storage.ts";
import { silentLog } from "../../../src/system/log.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { fakeKernel, fakeRootfs, openStorage, sha256, writeImage, writeInitrd } from "./support.ts";

const padded = (bytes: Buffer): Buffer =>
  Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);

test("an image is imported by digest: root's, 0444, with its holes, and our initrd before its modules", async (t) => {
  const { storage, imageDir } = await openStorage(t);
  const initrd = await writeInitrd(imageDir);
  const files = await writeImage(imageDir, "slim");
  const image = await storage.localImage("slim");
  assert.equal(image.kernel_sha256, sha256(files.kernel));
  assert.equal(image.rootfs_sha256, sha256(files.rootfs));
  assert.equal(image.rootfs_size_bytes, files.rootfs.length);
  const paths = await storage.imageFiles(image);
  assert.deepEqual(await readFile(paths.kernel), files.kernel);
  assert.deepEqual(await readFile(paths.rootfs), files.rootfs);
  assert.ok(files.modules !== undefined);
  assert.deepEqual(await readFile(paths.initrd), Buffer.concat([padded(initrd), padded(files.modules)]));
  for (const path of Object.values(paths)) {
    const { mode, uid } = await stat(path);
    assert.equal(mode & 0o7777, 0o444, path);
    assert.equal(uid, 0);
  }
  const { blocks, size } = await stat(paths.rootfs);
  assert.ok(blocks * 512 < size / 4, "zeros that the source wrote have become holes");
});

test("an image without modules gets our initrd alone, and images share what is the same", async (t) => {
  const { storage, root, imageDir } = await openStorage(t);
  const kernel = fakeKernel();
  await writeImage(imageDir, "one", { kernel, rootfs: fakeRootfs() });
  await writeImage(imageDir, "two", { kernel, rootfs: fakeRootfs() });
  const [one, two] = await Promise.all([storage.localImage("one"), storage.localImage("two")]);
  assert.equal(one.kernel_sha256, two.kernel_sha256);
  assert.equal(one.initrd_sha256, two.initrd_sha256);
  const stored = (await readdir(join(root, "images"))).filter((name) => name !== "index");
  assert.equal(stored.length, 4);
});

test("creates at the same time share one import, and staging is empty after it", async (t) => {
  const { storage, root, imageDir } = await openStorage(t);
  await writeImage(imageDir, "slim");
  const images = await Promise.all(Array.from({ length: 8 }, () => storage.localImage("slim")));
  assert.equal(new Set(images).size, 1);
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

test("a second create reads no image again, not even after a restart, until the image is built anew", async (t) => {
  const { storage, root, imageDir } = await openStorage(t);
  const { rootfs, kernel } = await writeImage(imageDir, "slim");
  const first = await storage.localImage("slim");
  const { atimeNs } = await stat(join(imageDir, "slim", "rootfs.ext4"), { bigint: true });
  const restarted = createStorage({
    rootDir: root,
    imageDir,
    fileUrlDirs: [],
    cloneMode: "auto",
    log: silentLog,
  });
  await restarted.open();
  assert.deepEqual(await restarted.localImage("slim"), first);
  assert.equal((await stat(join(imageDir, "slim", "rootfs.ext4"), { bigint: true })).atimeNs, atimeNs);
  const changed = Buffer.from(rootfs);
  changed.write("built anew", 4096);
  await writeImage(imageDir, "slim", { kernel, rootfs: changed });
  assert.equal((await restarted.localImage("slim")).rootfs_sha256, sha256(changed));
});

test("a new initrd is taken at the next create; what was made before keeps its own", async (t) => {
  const { storage, imageDir } = await openStorage(t);
  await writeImage(imageDir, "slim");
  const before = await storage.localImage("slim");
  await writeInitrd(imageDir, Buffer.from("another initrd, longer than nothing"));
  const after = await storage.localImage("slim");
  assert.notEqual(after.initrd_sha256, before.initrd_sha256);
  await storage.imageFiles(before);
});

test("an import that was forgotten by the store is made again", async (t) => {
  const { storage, imageDir } = await openStorage(t);
  await writeImage(imageDir, "slim");
  const image = await storage.localImage("slim");
  await rm((await storage.imageFiles(image)).rootfs);
  await assert.rejects(storage.imageFiles(image), { code: "image_invalid" });
  assert.deepEqual(await storage.localImage("slim"), image);
  await storage.imageFiles(image);
});

test("a missing image and a missing initrd name make images", async (t) => {
  const { storage, imageDir } = await openStorage(t);
  await assert.rejects(storage.localImage("nothing"), { code: "image_not_found", message: /make images/ });
  await assert.rejects(storage.localImage("../slim"), { code: "image_not_found" });
  await writeImage(imageDir, "slim");
  await rm(join(imageDir, "initrd.json"));
  await assert.rejects(storage.localImage("slim"), { code: "image_not_found", message: /make images/ });
});

test("an image that is not what its manifest says is refused and leaves nothing in the store", async (t) => {
  const { storage, root, imageDir } = await openStorage(t);
  await writeImage(imageDir, "changed");
  await writeFile(join(imageDir, "changed", "rootfs.ext4"), fakeRootfs());
  await assert.rejects(storage.localImage("changed"), {
    code: "image_invalid",
    message: /rootfs\.ext4 has the SHA-256/,
  });
  await writeImage(imageDir, "tar", { kernel: fakeKernel(), rootfs: Buffer.alloc(9000, "ustar") });
  await assert.rejects(storage.localImage("tar"), {
    code: "image_invalid",
    message: /not a raw filesystem image/,
  });
  await writeImage(imageDir, "text", { kernel: Buffer.from("<html>"), rootfs: fakeRootfs() });
  await assert.rejects(storage.localImage("text"), { code: "image_invalid", message: /not a kernel/ });
  await writeImage(imageDir, "missing");
  await rm(join(imageDir, "missing", "vmlinuz"));
  await assert.rejects(storage.localImage("missing"), {
    code: "image_invalid",
    message: /vmlinuz is missing/,
  });
  const stored = await readdir(join(root, "images"));
  for (const name of stored.filter((each) => each !== "index")) {
    assert.equal(sha256(await readFile(join(root, "images", name))), name);
  }
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

for (const [what, change, sentence] of [
  [
    "that names a file elsewhere",
    { kernel: { file: "../../etc/shadow", sha256: "a".repeat(64), size_bytes: 1 } },
    /kernel\.file/,
  ],
  ["of another architecture", { architecture: "aarch64" }, /architecture/],
  ["of another format", { format: 2 }, /format/],
] as const) {
  test(`a manifest ${what} is refused`, async (t) => {
    const { storage, imageDir } = await openStorage(t);
    await writeImage(imageDir, "odd", { kernel: fakeKernel(), rootfs: fakeRootfs() }, change);
    await assert.rejects(storage.localImage("odd"), { code: "image_invalid", message: sentence });
  });
}

test("an image file that is a device is refused without being read", async (t) => {
  const { storage, imageDir } = await openStorage(t);
  await writeImage(imageDir, "endless");
  const path = join(imageDir, "endless", "vmlinuz");
  await rm(path);
  await symlink("/dev/zero", path);
  await assert.rejects(storage.localImage("endless"), {
    code: "image_invalid",
    message: /not a regular file/,
  });
});

test("a create that is ended stops waiting; the import goes on for the others", async (t) => {
  const { storage, imageDir } = await openStorage(t);
  await writeImage(imageDir, "slim");
  const ended = new AbortController();
  const mine = storage.localImage("slim", ended.signal);
  const others = storage.localImage("slim");
  ended.abort(new Error("ended by a delete"));
  await assert.rejects(mine, /ended by a delete/);
  assert.equal((await others).name, "slim");
});
