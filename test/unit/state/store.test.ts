import assert from "node:assert/strict";
import { mkdtemp, readFile, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import { openState } from "../../../src/state/store.ts";
import type { Change } from "../../../src/state/types.ts";
import { silentLog } from "../../../src/system/log.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { machineRecord, operationRecord, plain, putOperation, snapshotRecord } from "./records.ts";

const dir = "/root/state";
const at = (disk: MemoryDisk, foldAfter?: { bytes: number; lines: number }) =>
  openState({ dir, log: silentLog, disk, ...(foldAfter === undefined ? {} : { foldAfter }) });

function failure(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code });
}

test("on a real disk: what was committed is there after a restart, in files that only root reads", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "state-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const options = { dir: join(folder, "state"), log: silentLog };
  const first = await openState(options);
  await first.commit(
    { put: "machine", record: machineRecord("a") },
    { put: "snapshot", record: snapshotRecord("s") },
    { put: "operation", record: operationRecord("o") },
  );
  await first.commit({ drop: "operation", id: "o" });
  const before = plain(first.state);
  const killed = await openState(options);
  assert.deepEqual(plain(killed.state), before, "without a close, from the journal");
  await killed.close();
  const folded = await openState(options);
  assert.deepEqual(plain(folded.state), before, "after a close, from state.json");
  assert.equal(folded.state.machines.get(machineId("a"))?.vmm?.process?.pid, 4711);
  await folded.close();
  assert.deepEqual((await readdir(options.dir)).sort(), [
    "journal",
    "journal.previous",
    "state.json",
    "state.json.previous",
  ]);
  assert.equal((await stat(options.dir)).mode & 0o777, 0o700);
  assert.equal((await stat(join(options.dir, "state.json"))).mode & 0o777, 0o600);
  // The killed one has its journal open still, in this process.
  await first.close();
  const document: unknown = JSON.parse(await readFile(join(options.dir, "state.json"), "utf8"));
  assert.ok(typeof document === "object" && document !== null && "format" in document);
  assert.equal(document.format, 1);
});

test("commits that wait at the same time share one line and one sync", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk);
  const before = disk.operations;
  await Promise.all(Array.from({ length: 50 }, (_, index) => store.commit(putOperation(`o${index}`))));
  assert.equal(disk.operations - before, 2);
  assert.equal(store.state.operations.size, 50);
});

test("a commit is not visible before it is durable", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk);
  let seenAtSync: boolean | undefined;
  disk.fault = (operation) => {
    if (operation === "sync") seenAtSync = store.state.operations.has("o");
    return undefined;
  };
  await store.commit(putOperation("o"));
  assert.equal(seenAtSync, false);
  assert.equal(store.state.operations.has("o"), true);
});

for (const [operation, code, expected] of [
  ["write", "ENOSPC", "disk_full"],
  ["write", "EDQUOT", "disk_full"],
  ["sync", "ENOSPC", "disk_full"],
  ["sync", "EIO", "internal"],
] as const) {
  test(`${code} at a commit's ${operation} is ${expected}, changes nothing, and the next commit follows a whole line`, async () => {
    const disk = new MemoryDisk();
    const store = await at(disk);
    await store.commit(putOperation("kept"));
    let failures = 1;
    disk.fault = (each) => (each === operation && failures-- > 0 ? failure(code) : undefined);
    await assert.rejects(
      store.commit(putOperation("lost")),
      (error) => error instanceof AppError && error.code === expected,
    );
    assert.deepEqual([...store.state.operations.keys()], ["kept"]);
    await store.commit(putOperation("next"));
    const again = await at(disk);
    assert.deepEqual([...again.state.operations.keys()], ["kept", "next"]);
  });
}

test("a half line that cannot be cut off is cut off before anything more is written", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk);
  await store.commit(putOperation("kept"));
  const whole = disk.content(`${dir}/journal`)?.length;
  disk.fault = (operation) => (operation === "sync" || operation === "truncate" ? failure("EIO") : undefined);
  await assert.rejects(store.commit(putOperation("lost")), { code: "internal" });
  const withHalf = disk.content(`${dir}/journal`)?.length;
  assert.ok(Number(withHalf) > Number(whole));
  await assert.rejects(store.commit(putOperation("more")), { code: "internal" });
  assert.equal(disk.content(`${dir}/journal`)?.length, withHalf, "nothing was written behind it");
  disk.fault = undefined;
  await store.commit(putOperation("next"));
  assert.deepEqual([...store.state.operations.keys()], ["kept", "next"]);
  const again = await at(disk);
  assert.deepEqual([...again.state.operations.keys()], ["kept", "next"]);
});

test("a new journal whose name is not durable gets nothing more before it is", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk, { bytes: 1024 * 1024, lines: 3 });
  let folder: Error | undefined;
  disk.fault = (operation, path) => (operation === "sync" && path === dir ? folder : undefined);
  folder = failure("EIO");
  for (let index = 0; index < 3; index += 1)
    await store.commit(putOperation(`o${index}`)).catch(() => undefined);
  folder = undefined;
  await store.commit(putOperation("next"));
  const again = await at(disk);
  assert.equal(again.state.operations.has("next"), true);
});

test("a malformed change is refused before it is written", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk);
  const before = disk.operations;
  const bad = { put: "machine", record: { ...machineRecord("a"), vcpus: 0 } } satisfies Change;
  await assert.rejects(store.commit(bad), /vcpus/);
  await assert.rejects(store.commit({ drop: "machine", id: "../a" as never }), /not an id/);
  assert.equal(disk.operations, before);
});

test("a long journal is folded into state.json, and its predecessors are kept", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk, { bytes: 1024 * 1024, lines: 10 });
  for (let index = 0; index < 25; index += 1) await store.commit(putOperation(`o${index}`));
  assert.deepEqual(
    disk.paths,
    ["journal", "journal.previous", "state.json", "state.json.previous"].map((name) => `${dir}/${name}`),
  );
  assert.equal(disk.content(`${dir}/journal`)?.toString().split("\n").length, 1 + 5 + 1);
  const again = await at(disk);
  assert.equal(again.state.operations.size, 25);
});

test("a fold that fails costs nothing: commits go on, and it is tried again later", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk, { bytes: 1024 * 1024, lines: 5 });
  disk.fault = (operation, path) =>
    operation === "open" && path.endsWith(".tmp") ? failure("ENOSPC") : undefined;
  for (let index = 0; index < 8; index += 1) await store.commit(putOperation(`o${index}`));
  assert.equal((await at(disk)).state.operations.size, 8);
  disk.fault = undefined;
  for (let index = 8; index < 12; index += 1) await store.commit(putOperation(`o${index}`));
  assert.ok(
    (disk.content(`${dir}/journal`)?.toString().split("\n").length ?? 99) < 5,
    "folded at the second try",
  );
  assert.equal((await at(disk)).state.operations.size, 12);
});

test("close waits for commits under way, and later ones are refused", async () => {
  const disk = new MemoryDisk();
  const store = await at(disk);
  const commit = store.commit(putOperation("o"));
  await store.close();
  await commit;
  await assert.rejects(store.commit(putOperation("p")), { code: "shutting_down" });
  assert.equal((await at(disk)).state.operations.size, 1);
});
