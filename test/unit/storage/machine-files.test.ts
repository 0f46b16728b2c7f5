import assert from "node:assert/strict";
import {
  link,
  lstat,
  open,
  readFile,
  readdir,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { createStorage } from "../../../src/storage/storage.ts";
import { silentLog } from "../../../src/system/log.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { M, MIB, draft, withMachine } from "./snapshot-support.ts";
import { sha256 } from "./support.ts";

const S = snapshotId("s");

test("a disk is a private copy of the image, as long as asked for, rounded up to 4096 bytes, never shorter", async (t) => {
  const { storage, image, rootfs } = await withMachine(t);
  const { disk } = storage.machineFiles(M);
  assert.deepEqual(await readFile(disk), rootfs);
  const stats = await stat(disk);
  assert.equal(stats.mode & 0o777, 0o600);
  assert.ok(stats.blocks * 512 < rootfs.length / 4, "holes stay holes");
  const larger = machineId("larger");
  await storage.makeMachine(larger);
  assert.equal((await storage.cloneImageDisk(image, larger, 8 * MIB + 1)).size_bytes, 8 * MIB + 4096);
  const grown = await readFile(storage.machineFiles(larger).disk);
  assert.equal(grown.length, 8 * MIB + 4096);
  assert.deepEqual(grown.subarray(0, rootfs.length), rootfs);
  const smaller = machineId("smaller");
  await storage.makeMachine(smaller);
  await assert.rejects(storage.cloneImageDisk(image, smaller, 2 * MIB), {
    code: "disk_too_small",
    details: { storage_bytes: 2 * MIB, minimum_bytes: 4 * MIB },
  });
  await writeFile(disk, "changed by the guest");
  assert.deepEqual(await readFile((await storage.imageFiles(image)).rootfs), rootfs);
});

test("a disk grows by a hole at its end, to a multiple of 4096 bytes, and never becomes shorter", async (t) => {
  const { storage, rootfs } = await withMachine(t);
  const { disk } = storage.machineFiles(M);
  assert.equal(await storage.growDisk(M, 8 * MIB + 1), 8 * MIB + 4096);
  const { size, blocks, mode } = await stat(disk);
  assert.deepEqual([size, mode & 0o777], [8 * MIB + 4096, 0o600]);
  assert.ok(blocks * 512 < rootfs.length);
  assert.equal(await storage.growDisk(M, MIB), 8 * MIB + 4096);
  assert.deepEqual((await readFile(disk)).subarray(0, rootfs.length), rootfs);
});

test("the report tells length and blocks of disks, snapshots and images, and leaves out what is none of them", async (t) => {
  const { storage, root, image } = await withMachine(t);
  await storage.growDisk(M, 64 * MIB);
  await storage.stageSnapshot(M, S);
  assert.deepEqual((await storage.usage()).snapshots, [], "a staged snapshot is none yet");
  await storage.finishSnapshot(S, draft(image, S));
  await storage.makeMachine(machineId("without-disk"));
  await symlink("/etc/passwd", join(root, "images", "link"));
  const [usage, again] = await Promise.all([storage.usage(), storage.usage()]);
  assert.equal(usage, again, "those who ask at the same time share one look");
  const { machines, snapshots, images, free_bytes, total_bytes } = usage;
  assert.deepEqual(
    machines.map(({ id, apparent_bytes }) => [id, apparent_bytes]),
    [[M, 64 * MIB]],
  );
  const used = (await stat(storage.machineFiles(M).disk)).blocks * 512;
  assert.deepEqual([machines[0]?.used_bytes, used < 8 * MIB], [used, true]);
  assert.deepEqual([snapshots.map(({ id }) => id), snapshots.length], [[S], 1]);
  assert.ok((snapshots[0]?.apparent_bytes ?? 0) > 64 * MIB, "disk and manifest");
  assert.equal(images.files, 3);
  const names = [image.kernel_sha256, image.initrd_sha256, image.rootfs_sha256];
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(root, "images", name))).size));
  assert.equal(
    images.apparent_bytes,
    sizes.reduce((sum, size) => sum + size, 0),
  );
  assert.ok(free_bytes > 0 && free_bytes <= total_bytes);
});

test("a machine's folder is made once", async (t) => {
  const { storage } = await withMachine(t);
  await assert.rejects(storage.makeMachine(M), { code: "internal" });
});

test("handing over gives disk and new logs to the VMM's uid and nothing else; taking back takes the disk", async (t) => {
  const { storage, root } = await withMachine(t);
  const files = storage.machineFiles(M);
  await storage.writeSeed(M, Buffer.from("seed"));
  await writeFile(files.console, "of a former life");
  await storage.handOver(M, 200_007, 200_008);
  for (const path of [files.disk, files.console, files.vmmLog, files.metrics]) {
    const { uid, gid, mode } = await stat(path);
    assert.deepEqual([uid, gid, mode & 0o7777], [200_007, 200_008, 0o600], path);
  }
  assert.equal((await stat(files.console)).size, 0);
  const seed = await stat(files.seed);
  assert.deepEqual([seed.uid, seed.mode & 0o7777], [0, 0o444]);
  const folder = await stat(join(root, "machines", M));
  assert.deepEqual([folder.uid, folder.mode & 0o7777], [0, 0o700]);
  await storage.syncMachine(M);
  await storage.takeBack(M);
  const disk = await stat(files.disk);
  assert.deepEqual([disk.uid, disk.gid, disk.mode & 0o7777], [0, 0, 0o600]);
});

test("a link in the place of a disk or log is never followed", async (t) => {
  const { storage, root } = await withMachine(t);
  const files = storage.machineFiles(M);
  const victim = join(root, "victim");
  await writeFile(victim, "precious");
  await symlink(victim, files.console);
  await storage.handOver(M, 200_007, 200_007);
  assert.ok((await lstat(files.console)).isFile());
  await rm(files.disk);
  await symlink(victim, files.disk);
  await assert.rejects(storage.handOver(M, 200_007, 200_007));
  await assert.rejects(storage.takeBack(M));
  assert.deepEqual([(await stat(victim)).uid, await readFile(victim, "utf8")], [0, "precious"]);
});

test("a new seed is a new file: a jail that holds the old one keeps it", async (t) => {
  const { storage, root } = await withMachine(t);
  const { seed } = storage.machineFiles(M);
  await storage.writeSeed(M, Buffer.from("first"));
  await link(seed, join(root, "in-a-jail"));
  await storage.writeSeed(M, Buffer.from("second"));
  assert.equal(await readFile(join(root, "in-a-jail"), "utf8"), "first");
  assert.equal(await readFile(seed, "utf8"), "second");
});

test("the tail of a console is its last bytes, without anything that a terminal would obey", async (t) => {
  const { storage } = await withMachine(t);
  const { console: path } = storage.machineFiles(M);
  assert.equal(await storage.tail(path, 100), "", "missing");
  const text =
    "early\n\u001b[31mred\u001b[0m \u001b]0;title\u0007bell\u0007\u0000\r\nover\rwritten\tüber \u202Egnp.exe\u009b1m\n";
  await writeFile(path, text);
  assert.equal(await storage.tail(path, 4096), "early\nred bell\nover\nwritten\tüber gnp.exe1m\n");
  assert.equal(await storage.tail(path, 4), "1m\n");
  await writeFile(path, `${"x".repeat(MIB)}the end`);
  assert.equal(await storage.tail(path, 7), "the end");
});

test("the tail of what is not our file is empty: a link, a pipe, a file with many names", async (t) => {
  const { storage, root } = await withMachine(t);
  const { console: path } = storage.machineFiles(M);
  await writeFile(join(root, "secret"), "secret");
  await symlink(join(root, "secret"), path);
  assert.equal(await storage.tail(path, 100), "");
  await rm(path);
  await writeFile(path, "text");
  await link(path, join(root, "two"));
  assert.equal(await storage.tail(path, 100), "text", "one more name is the jail's");
  await link(path, join(root, "three"));
  assert.equal(await storage.tail(path, 100), "");
});

test("a snapshot is staged, then in place with its digests, and a machine is made from it", async (t) => {
  const { storage, root, rootfs, image } = await withMachine(t);
  const { disk } = storage.machineFiles(M);
  await storage.handOver(M, 200_007, 200_007);
  await storage.stageSnapshot(M, S);
  assert.deepEqual((await storage.list()).snapshots, [], "not before it is finished");
  await writeFile(disk, "written after the clone");
  const finished = await storage.finishSnapshot(S, draft(image, S));
  assert.deepEqual(finished.disk, { size_bytes: rootfs.length, sha256_hex: sha256(rootfs) });
  const manifest = await readFile(join(root, "snapshots", S, "manifest.json"));
  assert.equal(finished.manifest.sha256_hex, sha256(manifest));
  assert.deepEqual(JSON.parse(manifest.toString()), {
    ...draft(image, S),
    disk: { name: "disk.img", ...finished.disk },
  });
  const stored = await stat(join(root, "snapshots", S, "disk.img"));
  assert.deepEqual([stored.uid, stored.mode & 0o777], [0, 0o444]);
  await assert.rejects(storage.stageSnapshot(M, S), { code: "snapshot_exists" });
  const restored = machineId("restored");
  await storage.makeMachine(restored);
  await storage.cloneSnapshotDisk(S, restored, undefined);
  await storage.removeSnapshot(S);
  assert.deepEqual(await readFile(storage.machineFiles(restored).disk), rootfs, "outlives its snapshot");
  assert.deepEqual(await storage.list(), { machines: [M, restored].sort(), snapshots: [] });
});

test("a link in the place of a machine's disk is not followed", async (t) => {
  const { storage, root, rootfs } = await withMachine(t);
  const { disk } = storage.machineFiles(M);
  await writeFile(join(root, "elsewhere"), rootfs);
  await rm(disk);
  await symlink(join(root, "elsewhere"), disk);
  await assert.rejects(storage.stageSnapshot(M, S), { code: "internal" });
  await assert.rejects(stat(join(root, "staging", `snapshot-${S}`, "disk.img")), { code: "ENOENT" });
});

test("a snapshot with a missing or shortened disk is snapshot_invalid", async (t) => {
  const { storage, root, image } = await withMachine(t);
  await assert.rejects(storage.cloneSnapshotDisk(S, M, undefined), { code: "snapshot_invalid" });
  await storage.stageSnapshot(M, S);
  await storage.finishSnapshot(S, draft(image, S));
  await truncate(join(root, "snapshots", S, "disk.img"), 4096);
  await assert.rejects(storage.cloneSnapshotDisk(S, M, undefined), { code: "snapshot_invalid" });
});

test("removing is idempotent, and a start sweeps what a former run left half done", async (t) => {
  const { storage, root, imageDir } = await withMachine(t);
  await storage.stageSnapshot(M, S);
  await storage.removeSnapshot(S);
  await storage.removeSnapshot(S);
  await storage.stageSnapshot(M, S);
  await writeFile(join(root, "trash", "left"), "");
  await using _open = await open(storage.machineFiles(M).disk);
  const restarted = createStorage({
    rootDir: root,
    imageDir,
    fileUrlDirs: [],
    cloneMode: "auto",
    log: silentLog,
  });
  await restarted.open();
  for (const folder of ["staging", "trash"]) assert.deepEqual(await readdir(join(root, folder)), []);
  assert.deepEqual(await restarted.list(), { machines: [M], snapshots: [] });
  await restarted.removeMachine(M);
  await restarted.removeMachine(M);
  assert.deepEqual(await restarted.list(), { machines: [], snapshots: [] });
  assert.ok((await restarted.freeBytes()) > 0);
});
