import assert from "node:assert/strict";
import { link, open, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LOG_KEPT_BYTES, LOG_LIMIT_BYTES } from "../../../src/storage/log-bound.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { M, MIB, UID, withMachine } from "./snapshot-support.ts";

const used = async (path: string): Promise<number> => (await stat(path)).blocks * 512;

test("a log that a VMM floods takes up no more than its limit, and its tail is what was written last", async (t) => {
  const { storage } = await withMachine(t);
  await storage.handOver(M, UID, UID);
  const files = storage.machineFiles(M);
  for (const path of [files.console, files.vmmLog, files.metrics]) {
    // As Firecracker does: no O_APPEND, at an offset of its own.
    await using vmm = await open(path, "r+");
    const flood = Buffer.alloc(MIB, "0123456789abcde\n");
    for (let written = 0; written < 5 * LOG_LIMIT_BYTES; written += MIB) {
      await vmm.write(flood);
      await storage.boundLogs(M);
      assert.ok((await used(path)) <= LOG_LIMIT_BYTES, path);
    }
    assert.equal((await stat(path)).size, 5 * LOG_LIMIT_BYTES, "its length is the VMM's offset");
    await vmm.write("last words\n");
    assert.equal(await storage.tail(path, 27), "0123456789abcde\nlast words\n");
    const { uid, mode } = await stat(path);
    assert.deepEqual([uid, mode & 0o7777], [UID, 0o600]);
  }
});

test("a log that is cut keeps its end, which is followed by what comes next without a gap", async (t) => {
  const { storage } = await withMachine(t);
  await storage.handOver(M, UID, UID);
  const { console: path } = storage.machineFiles(M);
  await using vmm = await open(path, "r+");
  const before = Buffer.from(Array.from({ length: 2 ** 19 }, (_, line) => `line ${line}\n`).join(""));
  assert.ok(before.length > LOG_LIMIT_BYTES);
  await vmm.write(before);
  await storage.boundLogs(M);
  assert.ok((await used(path)) <= LOG_KEPT_BYTES + 4096);
  await vmm.write("next\n");
  const whole = Buffer.concat([before, Buffer.from("next\n")]);
  const content = await readFile(path);
  assert.equal(content.length, whole.length);
  const kept = content.subarray(before.length - LOG_KEPT_BYTES);
  assert.deepEqual(kept, whole.subarray(before.length - LOG_KEPT_BYTES));
  assert.ok(content.subarray(0, before.length - LOG_KEPT_BYTES).every((byte) => byte === 0));
});

test("the tail shows text behind a hole, all of it and nothing of the hole", async (t) => {
  const { storage } = await withMachine(t);
  const { console: path } = storage.machineFiles(M);
  await writeFile(path, "");
  await truncate(path, 3 * MIB);
  await using vmm = await open(path, "r+");
  await vmm.write("behind\n", 3 * MIB);
  assert.equal(await storage.tail(path, 4096), "behind\n");
});

test("a small log stays as it is; a missing one is fine; a link in its place is never followed", async (t) => {
  const { storage, root } = await withMachine(t);
  const files = storage.machineFiles(M);
  await storage.boundLogs(M);
  await storage.handOver(M, UID, UID);
  await writeFile(files.console, "a line\n");
  const secret = join(root, "secret");
  const large = Buffer.alloc(LOG_LIMIT_BYTES + MIB, 1);
  await writeFile(secret, large);
  await rm(files.vmmLog);
  await symlink(secret, files.vmmLog);
  await rm(files.metrics);
  await link(secret, files.metrics);
  await link(secret, join(root, "third"));
  await storage.boundLogs(M);
  assert.equal(await readFile(files.console, "utf8"), "a line\n");
  assert.deepEqual(await readFile(secret), large, "nor is a file with more names than ours has");
});
