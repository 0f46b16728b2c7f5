import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, readFile, rm, stat, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { machineId, snapshotId } from "../../src/contract/ids.ts";
import { type StorageOptions, createStorage } from "../../src/storage/storage.ts";
import type { Storage } from "../../src/storage/types.ts";
import { run } from "../../src/system/run.ts";
import { MEMORY_BYTES, draft, takeWithMemory } from "../unit/storage/snapshot-support.ts";
import { fakeKernel, fakeRootfs, sha256, writeImage, writeInitrd } from "../unit/storage/support.ts";
import { rememberingLog } from "../unit/state/records.ts";

const MIB = 1024 * 1024;

interface Mounted {
  readonly point: string;
  readonly storage: (options?: Partial<StorageOptions>) => Storage;
  readonly log: ReturnType<typeof rememberingLog>;
}

/** A filesystem of its own on a loop device, which the kernel detaches by itself when it is unmounted. */
async function mounted(
  t: TestContext,
  make: readonly [string, ...string[]],
  options = "loop",
): Promise<Mounted> {
  const folder = await mkdtemp(join(tmpdir(), "reflink-"));
  const image = join(folder, "filesystem");
  const point = join(folder, "mnt");
  t.after(async () => {
    // Before its mount there is nothing to unmount.
    await run(["umount", point], { okCodes: [0, 32] });
    await rm(folder, { recursive: true, force: true });
  });
  await mkdir(point);
  await (await open(image, "wx")).close();
  await truncate(image, 400 * MIB);
  await run([...make, image], { timeoutMs: 60_000 });
  await run(["mount", "-o", options, image, point]);
  const log = rememberingLog();
  const imageDir = join(point, "built");
  await writeInitrd(imageDir);
  return {
    point,
    log,
    storage: (more = {}) =>
      createStorage({
        rootDir: join(point, "root"),
        imageDir,
        fileUrlDirs: [],
        cloneMode: "auto",
        log,
        ...more,
      }),
  };
}

const XFS = ["mkfs.xfs", "-q", "-m", "reflink=1"] as const;
const EXT4 = ["mkfs.ext4", "-q", "-F"] as const;

/** Bytes in use on the filesystem at `path`, with everything written out. */
async function used(path: string): Promise<number> {
  await run(["sync", "-f", path]);
  const { stdout } = await run(["df", "--output=used", "-B1", path]);
  return Number(stdout.split("\n")[1]);
}

const full = (): Buffer => {
  const bytes = Buffer.alloc(24 * MIB, fakeKernel(MIB));
  bytes.writeUInt16LE(0xef53, 0x438);
  return bytes;
};

test("on XFS, image, disks and snapshots share their blocks, and each keeps its own content", async (t) => {
  const { point, storage: make, log } = await mounted(t, XFS);
  const rootfs = full();
  await writeImage(join(point, "built"), "slim", { kernel: fakeKernel(), rootfs });
  const storage = make();
  await storage.open();
  assert.equal(storage.cloneMode, "reflink");
  const before = await used(point);
  const image = await storage.localImage("slim");
  const machines = ["a", "b", "c", "d"].map(machineId);
  for (const id of machines) {
    await storage.makeMachine(id);
    assert.deepEqual(await storage.cloneImageDisk(image, id, 32 * MIB), {
      clone: "reflink",
      size_bytes: 32 * MIB,
    });
  }
  const [a, b] = machines;
  assert.ok(a !== undefined && b !== undefined);
  {
    await using disk = await open(storage.machineFiles(a).disk, "r+");
    await disk.write("only in a", 2 * MIB);
  }
  assert.equal((await storage.stageSnapshot(a, snapshotId("s"))).clone, "reflink");
  const { disk } = await storage.finishSnapshot(snapshotId("s"), draft(image, snapshotId("s")));
  // Five disks and an import of 24 MiB each, in less room than one.
  assert.ok((await used(point)) - before < 4 * MIB);
  const ofA = await readFile(storage.machineFiles(a).disk);
  assert.equal(ofA.subarray(2 * MIB, 2 * MIB + 9).toString(), "only in a");
  assert.equal(disk.sha256_hex, sha256(ofA));
  assert.deepEqual((await readFile(storage.machineFiles(b).disk)).subarray(0, rootfs.length), rootfs);
  assert.deepEqual(await readFile((await storage.imageFiles(image)).rootfs), rootfs);
  assert.deepEqual(log.lines, []);
});

test("on XFS, a diff shares the pages that stayed the same with its base, and both have holes for zeros", async (t) => {
  const { point, storage: make } = await mounted(t, XFS);
  await writeImage(join(point, "built"), "slim", { kernel: fakeKernel(), rootfs: fakeRootfs() });
  const storage = make();
  await storage.open();
  const image = await storage.localImage("slim");
  const machine = machineId("a");
  await storage.makeMachine(machine);
  await storage.cloneImageDisk(image, machine, undefined);
  const [base, next] = ["base", "next"].map(snapshotId);
  assert.ok(base !== undefined && next !== undefined);
  const memory = Buffer.concat([
    Buffer.alloc(12 * MIB, fakeKernel(MIB)),
    Buffer.alloc(MEMORY_BYTES - 12 * MIB),
  ]);
  const taken = await takeWithMemory({ storage, image }, base, { machine, memory });
  assert.equal(taken.memory?.sha256_hex, sha256(memory));
  const path = (await storage.memoryFiles(base)).memory;
  const { blocks, uid, mode } = await stat(path);
  assert.ok(blocks * 512 <= 13 * MIB, "zeros that the VMM wrote are holes");
  assert.deepEqual([uid, mode & 0o7777], [0, 0o444]);
  await storage.keepMemoryBase(machine, base);
  const before = await used(point);
  const changed = Buffer.from(memory);
  changed.fill(1, 2 * MIB, 2 * MIB + 4096);
  const diff = await takeWithMemory({ storage, image }, next, {
    machine,
    kind: "diff",
    memory: changed,
    from: 2 * MIB,
    to: 2 * MIB + 4096,
  });
  assert.equal(diff.memory?.sha256_hex, sha256(changed));
  assert.ok((await used(point)) - before < 2 * MIB, "twelve MiB of memory and a disk in less than two");
  await storage.checkSnapshot(base, "all");
  await storage.checkSnapshot(next, "all");
});

test("on XFS with the setting copy, nothing is shared", async (t) => {
  const { point, storage: make } = await mounted(t, XFS);
  await writeImage(join(point, "built"), "slim", { kernel: fakeKernel(), rootfs: full() });
  const storage = make({ cloneMode: "copy" });
  await storage.open();
  const before = await used(point);
  const image = await storage.localImage("slim");
  await storage.makeMachine(machineId("a"));
  assert.equal((await storage.cloneImageDisk(image, machineId("a"), undefined)).clone, "copy");
  assert.ok((await used(point)) - before >= 48 * MIB);
});

test("on ext4, disks are sparse copies, with one warning; the setting reflink refuses to start", async (t) => {
  const { point, storage: make, log } = await mounted(t, EXT4);
  await assert.rejects(
    make({ cloneMode: "reflink" }).open(),
    /cannot clone files by reference.*forbids to copy/,
  );
  const rootfs = fakeRootfs(64 * MIB);
  await writeImage(join(point, "built"), "slim", { kernel: fakeKernel(), rootfs });
  const storage = make();
  await storage.open();
  assert.equal(storage.cloneMode, "copy");
  const image = await storage.localImage("slim");
  for (const id of ["a", "b"].map(machineId)) {
    await storage.makeMachine(id);
    assert.equal((await storage.cloneImageDisk(image, id, 128 * MIB)).clone, "copy");
    const { blocks, size } = await stat(storage.machineFiles(id).disk);
    assert.equal(size, 128 * MIB);
    assert.ok(blocks * 512 < 2 * MIB, "holes stay holes");
  }
  const copied = await readFile(storage.machineFiles(machineId("b")).disk);
  assert.equal(sha256(copied.subarray(0, rootfs.length)), sha256(rootfs));
  assert.equal(log.lines.filter((line) => line.startsWith("warn")).length, 1);
});

test("a full filesystem is disk_full, for a copy, an import and a seed, and no half disk stays", async (t) => {
  const { point, storage: make } = await mounted(t, EXT4);
  await writeImage(join(point, "built"), "slim", { kernel: fakeKernel(), rootfs: full() });
  await writeImage(join(point, "built"), "other", { kernel: fakeKernel(), rootfs: full().fill(7, 4 * MIB) });
  const storage = make();
  await storage.open();
  const image = await storage.localImage("slim");
  const a = machineId("a");
  await storage.makeMachine(a);
  await run(["fallocate", "-l", String((await storage.freeBytes()) - 4 * MIB), join(point, "ballast")]);
  await assert.rejects(storage.cloneImageDisk(image, a, undefined), { code: "disk_full" });
  await assert.rejects(storage.localImage("other"), { code: "disk_full" });
  await assert.rejects(storage.writeSeed(a, full()), { code: "disk_full" });
  await assert.rejects(stat(storage.machineFiles(a).disk), { code: "ENOENT" });
  await rm(join(point, "ballast"));
  await storage.cloneImageDisk(image, a, undefined);
});

test("a filesystem that fills up while memory is sealed is disk_full, and the snapshot can be taken once there is room", async (t) => {
  // Without the blocks that are root's alone, into which the daemon could go on writing.
  const { point, storage: make } = await mounted(t, [...EXT4, "-m", "0"]);
  await writeImage(join(point, "built"), "slim", { kernel: fakeKernel(), rootfs: fakeRootfs() });
  const storage = make();
  await storage.open();
  const image = await storage.localImage("slim");
  const machine = machineId("a");
  await storage.makeMachine(machine);
  await storage.cloneImageDisk(image, machine, undefined);
  const id = snapshotId("s");
  const ballast = join(point, "ballast");
  const leave = async (bytes: number): Promise<void> => {
    await run(["fallocate", "-l", String((await storage.freeBytes()) - bytes), ballast]);
  };
  const memory = Buffer.alloc(MEMORY_BYTES, fakeKernel(MIB));
  await leave(MEMORY_BYTES);
  const early = takeWithMemory({ storage, image }, id, { machine, memory });
  await assert.rejects(early, { code: "disk_full" });
  await rm(ballast);
  const late = takeWithMemory({ storage, image }, id, { machine, memory, sealing: () => leave(4 * MIB) });
  await assert.rejects(late, { code: "disk_full" });
  await storage.removeSnapshot(id);
  await rm(ballast);
  await takeWithMemory({ storage, image }, id, { machine, memory });
  await storage.checkSnapshot(id, "all");
});

test("a filesystem without devices or executables is refused with a sentence", async (t) => {
  for (const option of ["nodev", "noexec"]) {
    const { storage: make } = await mounted(t, EXT4, `loop,${option}`);
    await assert.rejects(make().open(), new RegExp(`which is mounted ${option}`));
  }
});

test("a mount on one of the folders is refused", async (t) => {
  const { point, storage: make } = await mounted(t, EXT4);
  const storage = make();
  await storage.open();
  const machines = join(point, "root", "machines");
  await run(["mount", "--bind", machines, machines]);
  try {
    await assert.rejects(make().open(), /machines is a mount of its own/);
  } finally {
    await run(["umount", machines]);
  }
});
