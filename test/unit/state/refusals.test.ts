import assert from "node:assert/strict";
import { test } from "node:test";
import { machineId } from "../../../src/contract/ids.ts";
import { encodeDocument } from "../../../src/state/document.ts";
import { openState } from "../../../src/state/store.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { machineRecord, operationRecord, putOperation, rememberingLog } from "./records.ts";

const dir = "/root/state";
const paths = { document: `${dir}/state.json`, journal: `${dir}/journal` };

/** A disk with a folded state and some lines behind it. */
async function lived(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const store = await openState({ dir, log: rememberingLog(), disk });
  await store.commit(putOperation("a"), putOperation("b"));
  await store.close();
  const again = await openState({ dir, log: rememberingLog(), disk });
  await again.commit(putOperation("c"));
  await again.commit(putOperation("d"));
  return disk;
}

/** Opens and expects a refusal whose sentence matches, with every file left as it was. */
async function refused(disk: MemoryDisk, sentence: RegExp): Promise<void> {
  const before = disk.paths.map((path) => [path, disk.content(path)?.toString("latin1")]);
  await assert.rejects(openState({ dir, log: rememberingLog(), disk }), (error) => {
    assert.ok(error instanceof Error);
    assert.match(error.message, sentence);
    assert.match(error.message, /Nothing was changed/);
    return true;
  });
  assert.deepEqual(
    disk.paths.map((path) => [path, disk.content(path)?.toString("latin1")]),
    before,
  );
}

for (const [name, path] of Object.entries(paths)) {
  test(`a flipped bit anywhere in the ${name} is noticed, and the files are left alone`, async () => {
    const disk = await lived();
    const good = disk.content(path) ?? Buffer.alloc(0);
    for (let index = 0; index < good.length; index += 1) {
      const bad = Buffer.from(good);
      bad[index] = (bad[index] ?? 0) ^ (1 << (index % 8));
      disk.place(path, bad);
      await refused(disk, /The state cannot be used/);
    }
    disk.place(path, good);
    await openState({ dir, log: rememberingLog(), disk });
  });

  test(`an empty ${name} is refused`, async () => {
    const disk = await lived();
    disk.place(path, "");
    await refused(disk, /is empty/);
  });

  test(`a missing ${name} is refused when the other file is there`, async () => {
    const disk = await lived();
    await disk.remove(path);
    await refused(disk, /is missing/);
  });
}

test("a state.json that is cut short anywhere is refused", async () => {
  const disk = await lived();
  const good = disk.content(paths.document) ?? Buffer.alloc(0);
  for (let length = 0; length < good.length; length += 1) {
    disk.place(paths.document, good.subarray(0, length));
    await refused(disk, /The state cannot be used/);
  }
});

test("a newer state.json is refused by its format, whatever else is in it", async () => {
  const disk = await lived();
  disk.place(paths.document, '{"format":2,"tables":{}}');
  await refused(disk, /format 2 and was written by a newer version/);
});

test("a file that cannot be read is refused", async () => {
  const disk = await lived();
  disk.read = () => Promise.reject(new Error("EIO: i/o error"));
  await assert.rejects(openState({ dir, log: rememberingLog(), disk }), /cannot be read \(EIO/);
});

test("a journal without one of its lines is refused", async () => {
  const disk = await lived();
  const [head, , last] = (disk.content(paths.journal)?.toString() ?? "").split("\n");
  disk.place(paths.journal, `${head}\n${last}\n`);
  await refused(disk, /goes from commit/);
});

test("as the sentence says: with state.json.previous in the place of a damaged state.json nothing is lost", async () => {
  const disk = await lived();
  disk.place(paths.document, disk.content(`${paths.document}.previous`) ?? "");
  const store = await openState({ dir, log: rememberingLog(), disk });
  assert.deepEqual([...store.state.operations.keys()], ["a", "b", "c", "d"]);
  const again = await openState({ dir, log: rememberingLog(), disk });
  assert.deepEqual([...again.state.operations.keys()], ["a", "b", "c", "d"]);
});

test("as the sentence says: with a damaged journal renamed, the daemon goes on from state.json", async () => {
  const disk = await lived();
  await disk.rename(paths.journal, `${dir}/journal.damaged`);
  const log = rememberingLog();
  const store = await openState({ dir, log, disk });
  assert.deepEqual([...store.state.operations.keys()], ["a", "b"]);
  assert.match(log.lines.join("\n"), /the journal was given up/);
  await store.commit(putOperation("e"));
  assert.equal((await openState({ dir, log, disk })).state.operations.size, 3);
});

test("both files missing beside older ones is not an empty state", async () => {
  const disk = await lived();
  for (const path of Object.values(paths)) await disk.remove(path);
  await refused(disk, /state\.json\.previous is there/);
});

test("one bad record is set aside and kept word for word, the others serve", async () => {
  const disk = new MemoryDisk();
  const bad = { id: "bad", phase: "levitating", notes: ["kept"] };
  const document = encodeDocument({
    seq: 0,
    records: {
      machines: [machineRecord("good"), bad],
      snapshots: [],
      operations: [17, operationRecord("o")],
    },
  });
  await openState({ dir, log: rememberingLog(), disk });
  disk.place(paths.document, document);
  const log = rememberingLog();
  const store = await openState({ dir, log, disk });
  assert.deepEqual([...store.state.machines.keys()], ["good"]);
  assert.deepEqual([...store.state.operations.keys()], ["o"]);
  assert.deepEqual(
    store.setAside.map(({ kind, id, record }) => ({ kind, id, record })),
    [
      { kind: "machine", id: "bad", record: bad },
      { kind: "operation", id: undefined, record: 17 },
    ],
  );
  assert.equal(log.lines.filter((line) => line.startsWith("error")).length, 2);
  await store.commit(putOperation("p"));
  await store.close();
  assert.ok(disk.content(paths.document)?.includes(JSON.stringify(bad)), "still in the file after a fold");
  const again = await openState({ dir, log, disk });
  assert.equal(again.setAside.length, 2);
  await again.commit({ drop: "machine", id: machineId("bad") });
  assert.equal(again.setAside.length, 1, "dropping it drops what was set aside");
});

test("a field that this version does not know is kept", async () => {
  const disk = new MemoryDisk();
  await openState({ dir, log: rememberingLog(), disk });
  const record = { ...operationRecord("o"), from_the_future: true };
  disk.place(
    paths.document,
    encodeDocument({ seq: 0, records: { machines: [], snapshots: [], operations: [record] } }),
  );
  const store = await openState({ dir, log: rememberingLog(), disk });
  await store.commit(putOperation("p"));
  await store.close();
  assert.match(disk.content(paths.document)?.toString() ?? "", /from_the_future/);
});
