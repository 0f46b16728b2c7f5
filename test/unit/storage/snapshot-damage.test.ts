import assert from "node:assert/strict";
import {
  copyFile,
  link,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { M, takeWithMemory, withMachine, writeAsVmm } from "./snapshot-support.ts";

const S = snapshotId("s");
const OTHER = snapshotId("other");

async function flipByte(path: string): Promise<void> {
  await using handle = await open(path, "r+");
  const { size } = await handle.stat();
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, Math.floor(size / 2));
  byte[0] = (byte[0] ?? 0) ^ 0x40;
  await handle.write(byte, 0, 1, Math.floor(size / 2));
}

const DAMAGES: Readonly<Record<string, (path: string, other: string) => Promise<void>>> = {
  "cut short": (path) => truncate(path, 100),
  empty: (path) => truncate(path, 0),
  "made longer": async (path) => truncate(path, (await stat(path)).size + 4096),
  "with a byte changed": flipByte,
  "exchanged for another's": async (path, other) => {
    await rm(path);
    await copyFile(other, path);
  },
  gone: (path) => rm(path),
  "a folder": async (path) => {
    await rm(path);
    await mkdir(path);
  },
  "a link to itself elsewhere": async (path) => {
    await rename(path, `${path}.moved`);
    await symlink(`${path}.moved`, path);
  },
};
const ARTIFACTS = {
  disk: "disk.img",
  memory: "memory.img",
  vmstate: "vmstate.bin",
  manifest: "manifest.json",
} as const;

test("each file that is damaged in each way is found, and named", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await takeWithMemory(place, S);
  await writeAsVmm(storage.machineFiles(M).disk, Buffer.alloc(4096, 5));
  await takeWithMemory(place, OTHER);
  const folder = join(root, "snapshots", S);
  for (const [artifact, file] of Object.entries(ARTIFACTS)) {
    for (const [damage, inflict] of Object.entries(DAMAGES)) {
      const path = join(folder, file);
      // The very file is put back in the end: its inode and time are those that are known.
      await link(path, join(root, "kept"));
      await rm(path);
      await copyFile(join(root, "kept"), path);
      await inflict(path, join(root, "snapshots", OTHER, file));
      await assert.rejects(
        storage.checkSnapshot(S, "all"),
        (error: unknown) => {
          assert.ok(error instanceof AppError);
          assert.equal(error.code, "snapshot_invalid", error.message);
          assert.match(error.message, /snapshot s /);
          assert.deepEqual([error.details?.["artifact"], error.details?.["file"]], [artifact, file]);
          assert.notEqual(error.details?.["expected"], error.details?.["found"]);
          return true;
        },
        `${file} ${damage}`,
      );
      if (artifact === "memory" || artifact === "vmstate") await storage.checkSnapshot(S, "disk");
      else await assert.rejects(storage.checkSnapshot(S, "disk"), { code: "snapshot_invalid" });
      await rm(path, { force: true, recursive: true });
      await rm(`${path}.moved`, { force: true });
      await rename(join(root, "kept"), path);
      await storage.checkSnapshot(S, "all");
    }
  }
});

test("what was expected and found is told: a length, a digest, nothing", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  const { memory } = await takeWithMemory(place, S);
  const path = join(root, "snapshots", S, "memory.img");
  const details = (expected: string, found: string | RegExp) => (error: AppError) => {
    assert.equal(error.details?.["expected"], expected);
    assert.match(String(error.details?.["found"]), new RegExp(found));
    return true;
  };
  await flipByte(path);
  const digest = `the SHA-256 ${memory?.sha256_hex}`;
  await assert.rejects(storage.checkSnapshot(S, "all"), details(digest, /^the SHA-256 [0-9a-f]{64}$/));
  await truncate(path, 4096);
  const length = details(`${memory?.size_bytes} bytes`, /^4096 bytes$/);
  await assert.rejects(storage.checkSnapshot(S, "all"), length);
  await assert.rejects(storage.memoryFiles(S), length, "seen without reading it");
  await rm(path);
  await assert.rejects(storage.checkSnapshot(S, "all"), details("a regular file", /^nothing$/));
  await storage.removeSnapshot(S);
  await assert.rejects(storage.readManifest(S), { code: "snapshot_invalid" });
});

test("a snapshot is not read again as long as its files are those that were sealed, hard links to them or not", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await takeWithMemory(place, S);
  const folder = join(root, "snapshots", S);
  const sealed = await stat(join(folder, "proof.json"));
  await link(join(folder, "memory.img"), join(root, "in-a-jail"));
  await storage.checkSnapshot(S, "all");
  const { ino, mtimeMs } = await stat(join(folder, "proof.json"));
  assert.deepEqual([ino, mtimeMs], [sealed.ino, sealed.mtimeMs]);
  // That it was believed rather than checked shows where it lies.
  const path = join(folder, "memory.img");
  await flipByte(path);
  const { mtimeNs } = await stat(path, { bigint: true });
  const proof = JSON.parse(await readFile(join(folder, "proof.json"), "utf8"));
  proof["memory.img"].mtime_ns = `${mtimeNs}`;
  await writeFile(join(folder, "proof.json"), JSON.stringify(proof));
  await storage.checkSnapshot(S, "all");
  await rm(join(folder, "proof.json"));
  await assert.rejects(storage.checkSnapshot(S, "all"), { code: "snapshot_invalid" });
});

test("files that were touched or copied are read again, once", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await takeWithMemory(place, S);
  const folder = join(root, "snapshots", S);
  const proof = async (): Promise<Record<string, { mtime_ns: string; ino: string }>> =>
    JSON.parse(await readFile(join(folder, "proof.json"), "utf8"));
  const before = await proof();
  await utimes(join(folder, "memory.img"), 1000, 1000);
  await rename(join(folder, "vmstate.bin"), join(root, "moved"));
  await copyFile(join(root, "moved"), join(folder, "vmstate.bin"));
  await Promise.all([storage.checkSnapshot(S, "all"), storage.checkSnapshot(S, "all")]);
  const after = await proof();
  assert.equal(after["memory.img"]?.mtime_ns, "1000000000000");
  assert.notEqual(after["vmstate.bin"]?.ino, before["vmstate.bin"]?.ino);
  assert.deepEqual(
    [after["disk.img"], after["manifest.json"]],
    [before["disk.img"], before["manifest.json"]],
  );
  const { ino } = await stat(join(folder, "proof.json"));
  await storage.checkSnapshot(S, "all");
  assert.equal((await stat(join(folder, "proof.json"))).ino, ino);
});

test("a proof that is missing or broken costs a look, no more", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await takeWithMemory(place, S);
  const path = join(root, "snapshots", S, "proof.json");
  for (const text of ["", "{", "[]", '{"disk.img":7}', '{"disk.img":{"sha256":"x"}}']) {
    await writeFile(path, text);
    await storage.checkSnapshot(S, "all");
    const names = Object.keys(JSON.parse(await readFile(path, "utf8"))).sort();
    assert.deepEqual(names, ["disk.img", "memory.img", "vmstate.bin"]);
  }
});

test("a disk whose snapshot is damaged makes no machine", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await takeWithMemory(place, S);
  await storage.makeMachine(machineId("n"));
  await truncate(join(root, "snapshots", S, "disk.img"), 4096);
  const refused = { code: "snapshot_invalid", details: { artifact: "disk", file: "disk.img" } };
  await assert.rejects(storage.cloneSnapshotDisk(S, machineId("n"), undefined), (error: AppError) => {
    const { artifact, file } = error.details ?? {};
    assert.deepEqual({ code: error.code, details: { artifact, file } }, refused);
    return true;
  });
});
