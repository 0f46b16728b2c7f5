import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { link, open, readFile, readdir, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { snapshotId } from "../../../src/contract/ids.ts";
import { createStorage } from "../../../src/storage/storage.ts";
import { silentLog } from "../../../src/system/log.ts";
import { rootTest as test } from "../../support/root-test.ts";
import {
  M,
  MEMORY_BYTES,
  MIB,
  UID,
  draft,
  guestMemory,
  takeWithMemory,
  withMachine,
  writeAsVmm,
} from "./snapshot-support.ts";
import { sha256 } from "./support.ts";

const S = snapshotId("s");
const OWNER = { uid: UID, gid: UID, memoryBytes: MEMORY_BYTES };

test("files for the memory belong to the VMM and are empty; the disk may be staged after them, once", async (t) => {
  const { storage, root } = await withMachine(t);
  const staged = await storage.stageMemory(M, S, "full", OWNER);
  for (const path of [staged.state, staged.memory]) {
    const { uid, gid, mode, size } = await stat(path);
    assert.deepEqual([uid, gid, mode & 0o7777, size], [UID, UID, 0o600, 0], path);
    assert.ok(path.startsWith(join(root, "staging")));
  }
  const folder = await stat(join(root, "staging", "snapshot-s"));
  assert.deepEqual([folder.uid, folder.mode & 0o7777], [0, 0o700]);
  await storage.stageSnapshot(M, S);
  await assert.rejects(storage.stageSnapshot(M, S), { code: "snapshot_exists" });
  await assert.rejects(storage.stageMemory(M, S, "full", OWNER), { code: "snapshot_exists" });
  await storage.removeSnapshot(S);
  assert.deepEqual(await readdir(join(root, "staging")), []);
  await storage.stageSnapshot(M, S);
});

test("a snapshot with memory is sealed: root's copies without written zeros, a manifest for root's eyes, one folder", async (t) => {
  const place = await withMachine(t);
  const { storage, root, rootfs, image } = place;
  const taken = await takeWithMemory(place, S);
  const folder = join(root, "snapshots", S);
  const names = ["disk.img", "manifest.json", "memory.img", "proof.json", "vmstate.bin"];
  assert.deepEqual((await readdir(folder)).sort(), names);
  const contents = { "disk.img": rootfs, "memory.img": taken.memoryBytes, "vmstate.bin": taken.stateBytes };
  for (const [name, bytes] of Object.entries(contents)) {
    const { uid, gid, mode, nlink } = await stat(join(folder, name));
    assert.deepEqual([uid, gid, mode & 0o7777, nlink], [0, 0, 0o444, 1], name);
    assert.equal(sha256(await readFile(join(folder, name))), sha256(bytes), name);
  }
  assert.deepEqual(taken.memory, { size_bytes: MEMORY_BYTES, sha256_hex: sha256(taken.memoryBytes) });
  assert.deepEqual(taken.vmstate, { size_bytes: 5000, sha256_hex: sha256(taken.stateBytes) });
  const { blocks } = await stat(join(folder, "memory.img"));
  assert.ok(blocks * 512 < MIB, `zeros are holes: ${blocks} blocks`);
  const text = await readFile(join(folder, "manifest.json"));
  assert.equal((await stat(join(folder, "manifest.json"))).mode & 0o077, 0, "it holds a key");
  assert.deepEqual(taken.manifest, { size_bytes: text.length, sha256_hex: sha256(text) });
  assert.deepEqual(await storage.readManifest(S), {
    ...draft(image, S, "full"),
    disk: { name: "disk.img", ...taken.disk },
    memory: { name: "memory.img", ...taken.memory },
    vmstate: { name: "vmstate.bin", ...taken.vmstate },
  });
  assert.deepEqual(await storage.memoryFiles(S), {
    memory: join(folder, "memory.img"),
    vmstate: join(folder, "vmstate.bin"),
  });
  assert.deepEqual(await readdir(join(root, "staging")), []);
  await assert.rejects(storage.stageMemory(M, S, "full", OWNER), { code: "snapshot_exists" });
});

test("a VMM that still holds its files open changes nothing of a sealed snapshot", async (t) => {
  const { storage, image } = await withMachine(t);
  const staged = await storage.stageMemory(M, S, "full", OWNER);
  await using held = await open(staged.memory, "r+");
  await held.write(guestMemory());
  await writeAsVmm(staged.state, Buffer.from("state"));
  await storage.stageSnapshot(M, S);
  const { memory } = await storage.finishSnapshot(S, draft(image, S, "full"));
  await held.write(Buffer.alloc(MEMORY_BYTES, 1), 0, MEMORY_BYTES, 0);
  assert.equal(sha256(await readFile((await storage.memoryFiles(S)).memory)), memory?.sha256_hex);
});

test("files that still lie in a jail have two names, and are sealed all the same", async (t) => {
  const { storage, image, root } = await withMachine(t);
  const staged = await storage.stageMemory(M, S, "full", OWNER);
  await writeAsVmm(staged.memory, guestMemory());
  await writeAsVmm(staged.state, Buffer.from("state"));
  for (const path of [staged.memory, staged.state]) await link(path, join(root, basename(path)));
  await storage.stageSnapshot(M, S);
  const { vmstate } = await storage.finishSnapshot(S, draft(image, S, "full"));
  assert.deepEqual(vmstate, { size_bytes: 5, sha256_hex: sha256("state") });
});

/** What may lie where the VMM was to write its memory. */
const PLANTED: Readonly<Record<string, (path: string, root: string) => unknown>> = {
  "a link to a secret": async (path, root) => {
    await rm(path);
    await writeFile(join(root, "secret"), guestMemory());
    await symlink(join(root, "secret"), path);
  },
  "a pipe": async (path) => {
    await rm(path);
    execFileSync("mkfifo", [path]);
  },
  "a file of another": async (path) => {
    await rm(path);
    await writeFile(path, guestMemory());
  },
  "a file with three names": async (path, root) => {
    await link(path, join(root, "two"));
    await link(path, join(root, "three"));
  },
  "an empty file": (path) => truncate(path, 0),
  "half of the memory": (path) => truncate(path, MEMORY_BYTES / 2),
  "more than the memory": (path) => truncate(path, MEMORY_BYTES + 4096),
  "more than any VMM writes": (path) => truncate(path, 2 ** 40),
  nothing: (path) => rm(path),
};

test("what a VMM was to write is refused when it is not what was asked for, memory and state alike", async (t) => {
  const { storage, image, root } = await withMachine(t);
  for (const file of ["memory", "state"] as const) {
    for (const [name, plant] of Object.entries(PLANTED)) {
      // A state file has no length of its own.
      if (file === "state" && name.endsWith("the memory")) continue;
      const staged = await storage.stageMemory(M, S, "full", OWNER);
      await writeAsVmm(staged.memory, guestMemory());
      await writeAsVmm(staged.state, Buffer.from("state"));
      await plant(staged[file], root);
      await storage.stageSnapshot(M, S);
      await assert.rejects(
        storage.finishSnapshot(S, draft(image, S, "full")),
        { code: "vmm_failed" },
        `${file}: ${name}`,
      );
      await storage.removeSnapshot(S);
      assert.deepEqual(await storage.list(), { machines: [M], snapshots: [] });
      for (const left of ["secret", "two", "three"]) await rm(join(root, left), { force: true });
    }
  }
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

test("memory that may not fit is refused before anything is made", async (t) => {
  const { storage, root } = await withMachine(t);
  const memoryBytes = 2 ** 50;
  await assert.rejects(storage.stageMemory(M, S, "full", { ...OWNER, memoryBytes }), { code: "disk_full" });
  assert.deepEqual(await readdir(join(root, "staging")), []);
});

test("a diff is written over a copy of the machine's memory base, which stays as it is", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await assert.rejects(storage.stageMemory(M, S, "diff", OWNER), { code: "no_memory_base" });
  const base = await takeWithMemory(place, snapshotId("base"));
  await storage.keepMemoryBase(M, snapshotId("base"));
  const { memory, state } = await storage.stageMemory(M, S, "diff", OWNER);
  const { uid, mode, blocks } = await stat(memory);
  assert.deepEqual([uid, mode & 0o7777], [UID, 0o600]);
  assert.ok(blocks * 512 < MIB, "holes stay holes");
  assert.equal(sha256(await readFile(memory)), sha256(base.memoryBytes));
  {
    await using handle = await open(memory, "r+");
    await handle.write(Buffer.alloc(4096, 9), 0, 4096, 3 * MIB);
  }
  await writeAsVmm(state, Buffer.from("state"));
  await storage.stageSnapshot(M, S);
  await storage.finishSnapshot(S, draft(place.image, S, "diff"));
  const merged = Buffer.from(base.memoryBytes);
  merged.fill(9, 3 * MIB, 3 * MIB + 4096);
  assert.equal(sha256(await readFile(join(root, "snapshots", S, "memory.img"))), sha256(merged));
  await storage.checkSnapshot(snapshotId("base"), "all");
});

test("a machine's memory base is a link that outlives the snapshot, gives way to a newer one, and goes with the machine", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  const path = join(root, "machines", M, "memory-base.img");
  const one = snapshotId("one");
  await takeWithMemory(place, one);
  const two = await takeWithMemory(place, snapshotId("two"));
  const before = (await storage.usage()).machines[0];
  await storage.keepMemoryBase(M, one);
  await storage.keepMemoryBase(M, one);
  assert.equal((await stat(path)).ino, (await stat((await storage.memoryFiles(one)).memory)).ino);
  const after = (await storage.usage()).machines[0];
  assert.equal((after?.apparent_bytes ?? 0) - (before?.apparent_bytes ?? 0), MEMORY_BYTES);
  assert.ok((after?.used_bytes ?? 0) > (before?.used_bytes ?? 0));
  await storage.removeSnapshot(one);
  await stat(path);
  await storage.keepMemoryBase(M, snapshotId("two"));
  assert.equal(sha256(await readFile(path)), sha256(two.memoryBytes));
  assert.deepEqual(
    (await readdir(join(root, "machines", M))).filter((name) => name.startsWith("memory")),
    ["memory-base.img"],
  );
  await assert.rejects(storage.keepMemoryBase(M, one), { code: "snapshot_invalid" });
  await storage.dropMemoryBase(M);
  await storage.dropMemoryBase(M);
  await assert.rejects(stat(path), { code: "ENOENT" });
  await storage.keepMemoryBase(M, snapshotId("two"));
  await storage.removeMachine(M);
  await storage.dropMemoryBase(M);
  assert.deepEqual(await readdir(join(root, "machines")), []);
});

test("a snapshot that is deleted leaves those who hold its memory what they have", async (t) => {
  const place = await withMachine(t);
  const { memoryBytes } = await takeWithMemory(place, S);
  const inJail = join(place.root, "in-a-jail");
  await link((await place.storage.memoryFiles(S)).memory, inJail);
  await place.storage.removeSnapshot(S);
  assert.equal(sha256(await readFile(inJail)), sha256(memoryBytes));
});

test("what is staged and what the manifest tells of must be the same", async (t) => {
  const { storage, image } = await withMachine(t);
  await assert.rejects(storage.finishSnapshot(S, draft(image, S)), { code: "internal" });
  await storage.stageSnapshot(M, S);
  await assert.rejects(storage.finishSnapshot(S, draft(image, S, "full")), { code: "internal" });
  await assert.rejects(storage.memoryFiles(S), { code: "snapshot_invalid" });
  await storage.finishSnapshot(S, draft(image, S));
  await assert.rejects(storage.memoryFiles(S), { code: "snapshot_invalid" }, "a disk snapshot has no memory");
  await storage.checkSnapshot(S, "all");
});

test("what a daemon that was killed left in staging is gone after the next start, and its name is free", async (t) => {
  const place = await withMachine(t);
  const staged = await place.storage.stageMemory(M, S, "full", OWNER);
  await writeAsVmm(staged.memory, guestMemory());
  await place.storage.stageSnapshot(M, S);
  const { root: rootDir, imageDir, image } = place;
  const storage = createStorage({ rootDir, imageDir, fileUrlDirs: [], cloneMode: "auto", log: silentLog });
  await storage.open();
  assert.deepEqual(await readdir(join(rootDir, "staging")), []);
  await takeWithMemory({ storage, image }, S);
  assert.deepEqual((await storage.list()).snapshots, [S]);
});
