import assert from "node:assert/strict";
import { readFile, rename, rm, symlink, truncate } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { snapshotId } from "../../../src/contract/ids.ts";
import { upload } from "../../../src/storage/upload.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { startPartStore } from "./part-store.ts";
import { M, MIB, draft, takeWithMemory, withMachine } from "./snapshot-support.ts";
import { sha256 } from "./support.ts";
import { KINDS, S, noMoreDescriptorsThan, openDescriptors } from "./travel-support.ts";

async function bytesOf(stream: Readable): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) {
    assert.ok(Buffer.isBuffer(piece));
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

const FILES = {
  disk: "disk.img",
  memory: "memory.img",
  vmstate: "vmstate.bin",
  manifest: "manifest.json",
} as const;

test("each file is read in any range, with its size and digest", async (t) => {
  const place = await withMachine(t);
  const taken = await takeWithMemory(place, S);
  const before = await openDescriptors();
  for (const kind of KINDS) {
    await using file = await place.storage.openArtifact(S, kind);
    const bytes = await readFile(join(place.root, "snapshots", S, FILES[kind]));
    const { size_bytes: size, sha256_hex } = file;
    assert.deepEqual({ size_bytes: size, sha256_hex }, taken[kind]);
    assert.equal(sha256_hex, sha256(bytes));
    for (const [start, end] of [
      [0, size],
      [0, 1],
      [size - 1, size],
      [100, 700],
      [5, 5],
    ] as const)
      assert.ok(
        bytes.subarray(start, end).equals(await bytesOf(file.stream(start, end))),
        `${kind} ${start}-${end}`,
      );
  }
  await noMoreDescriptorsThan(before);
});

test("a snapshot that is deleted meanwhile is read to its end; disposing closes the file", async (t) => {
  const place = await withMachine(t);
  const { memoryBytes } = await takeWithMemory(place, S);
  const before = await openDescriptors();
  const file = await place.storage.openArtifact(S, "memory");
  const stream = file.stream(0, file.size_bytes);
  const pieces = stream[Symbol.asyncIterator]();
  const first: unknown = (await pieces.next()).value;
  assert.ok(Buffer.isBuffer(first));
  await place.storage.removeSnapshot(S);
  assert.ok(memoryBytes.subarray(first.length).equals(await bytesOf(stream)));
  await file[Symbol.asyncDispose]();
  await noMoreDescriptorsThan(before);
  await assert.rejects(bytesOf(file.stream(0, 10)), { code: "internal" });
});

test("many streams at the same time, some left in the middle, leave nothing behind", async (t) => {
  const place = await withMachine(t);
  const { memoryBytes } = await takeWithMemory(place, S);
  const before = await openDescriptors();
  const warnings: Error[] = [];
  const warned = (warning: Error): unknown => warnings.push(warning);
  process.on("warning", warned);
  t.after(() => process.off("warning", warned));
  {
    await using file = await place.storage.openArtifact(S, "memory");
    await Promise.all(
      Array.from({ length: 40 }, async (_, index) => {
        const stream = file.stream(index * 1000, index * 1000 + MIB);
        if (index % 2 === 0) stream.destroy();
        else assert.ok(memoryBytes.subarray(index * 1000, index * 1000 + MIB).equals(await bytesOf(stream)));
      }),
    );
  }
  await noMoreDescriptorsThan(before);
  assert.deepEqual(warnings, []);
});

test("a file that is not what the manifest says is not opened, nor a link; one that it does not have is not found", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await takeWithMemory(place, S);
  const before = await openDescriptors();
  const path = join(root, "snapshots", S, "vmstate.bin");
  await rename(path, join(root, "moved"));
  const invalid = { code: "snapshot_invalid" };
  await assert.rejects(storage.openArtifact(S, "vmstate"), invalid);
  await symlink(join(root, "moved"), path);
  await assert.rejects(storage.openArtifact(S, "vmstate"), invalid);
  await rm(path);
  await rename(join(root, "moved"), path);
  await (await storage.openArtifact(S, "vmstate"))[Symbol.asyncDispose]();
  await truncate(path, 100);
  await assert.rejects(storage.openArtifact(S, "vmstate"), invalid);
  await assert.rejects(storage.openArtifact(snapshotId("other"), "disk"), invalid);

  const disk = snapshotId("disk-only");
  await storage.stageSnapshot(M, disk);
  await storage.finishSnapshot(disk, draft(place.image, disk));
  await assert.rejects(storage.openArtifact(disk, "memory"), { code: "artifact_not_found" });
  await noMoreDescriptorsThan(before);
});

test("a file that is cut short while it is read fails its stream instead of ending it", async (t) => {
  const place = await withMachine(t);
  await takeWithMemory(place, S);
  await using file = await place.storage.openArtifact(S, "memory");
  await truncate(join(place.root, "snapshots", S, "memory.img"), MIB);
  await assert.rejects(bytesOf(file.stream(0, file.size_bytes)), { code: "snapshot_invalid" });

  // And an upload of it, without another try.
  const store = await startPartStore(t);
  const part = { part_number: 1, offset_bytes: 0, size_bytes: file.size_bytes };
  const upload_url = `${store.url}/parts/memory/1?X-Amz-Signature=secret`;
  const plan = {
    artifacts: [{ artifact_id: "a", object_key: "k", upload_id: "u", parts: [{ ...part, upload_url }] }],
  };
  const source = { check: async () => {}, open: async () => file };
  await assert.rejects(
    upload(source, plan, () => "memory", {}),
    { code: "snapshot_invalid" },
  );
  assert.equal(store.pathsOf("PUT").length, 1);
});
