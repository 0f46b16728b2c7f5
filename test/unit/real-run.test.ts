import assert from "node:assert/strict";
import { test } from "node:test";
import { complaints, type RealRun, readRecord, type Suite } from "../support/real-run/record.ts";
import { realPair } from "../support/real-run/pair.ts";
import { readSuite } from "../support/real-run/suite.ts";
import { allowedSkips } from "../support/skips.ts";

const HOW = "run the suite on a real pair: make record-real-run (CONTRIBUTING.md)";
const [OLD, NEW] = ["a".repeat(64), "b".repeat(64)];

const RECORD: RealRun = {
  firecracker: { version: "1.17.0", sha256: OLD },
  jailer: { version: "1.17.0", sha256: OLD },
  commit: "c".repeat(40),
  date: "2026-01-01T00:00:00.000Z",
  sources: { "test/a.test.ts": OLD, "test/support.ts": OLD },
  cases: { "test/a.test.ts": { one: "passed", "group > two": "skipped: no disk here" } },
};
const SUITE: Suite = {
  sources: RECORD.sources,
  cases: [
    { file: "test/a.test.ts", name: "one" },
    { file: "test/a.test.ts", name: "group > two" },
  ],
};

test("every case of the conformance suite has been run on a real pair since it last changed", async () => {
  const suite = await readSuite();
  assert.ok(suite.cases.length > 300, `only ${suite.cases.length} cases were found: the check is blind`);
  const found = complaints(readRecord(), suite, allowedSkips());
  assert.equal(found.join("\n"), "", HOW);
});

test("the record tells nothing of the machine's folders", () => {
  const record = readRecord();
  const results = Object.values(record.cases).flatMap((cases) => Object.values(cases));
  for (const value of [record.firecracker.version, record.jailer.version, ...results])
    assert.doesNotMatch(value, /\//);
  for (const path of [...Object.keys(record.sources), ...Object.keys(record.cases)])
    assert.match(path, /^test\//);
});

test("a record that knows every source and case has nothing against it", () => {
  assert.deepEqual(complaints(RECORD, SUITE, ["no disk"]), []);
});

test("a source that changed, came or went makes the record stale", () => {
  const sources = { "test/a.test.ts": NEW, "test/new.ts": NEW };
  assert.deepEqual(complaints(RECORD, { ...SUITE, sources }, ["no disk"]), [
    "test/a.test.ts is newer than the run",
    "test/support.ts is newer than the run",
    "test/new.ts is newer than the run",
  ]);
});

test("a case that the record lacks is named, though its file is there", () => {
  const cases = [
    { file: "test/a.test.ts", name: "three" },
    { file: "test/b.test.ts", name: "one" },
  ];
  assert.deepEqual(complaints(RECORD, { ...SUITE, cases }, ["no disk"]), [
    "test/a.test.ts: three: was not run",
    "test/b.test.ts: one: was not run",
  ]);
});

test("a case that failed there, or was skipped for no allowed reason, is named", () => {
  const record = { ...RECORD, cases: { "test/a.test.ts": { one: "failed", "group > two": "skipped: why" } } };
  assert.deepEqual(complaints(record, SUITE, ["no disk"]), [
    "test/a.test.ts: one: failed",
    "test/a.test.ts: group > two: skipped: why",
  ]);
});

test("a pair is real when both are named and neither is a script, as the stand-ins are", () => {
  const node = process.execPath;
  const script = "src/standin/bin/firecracker-qemu";
  const named = (firecracker: string, jailer: string) =>
    realPair({ FIRECRACKER_BINARY_PATH: firecracker, JAILER_BINARY_PATH: jailer });
  assert.equal(realPair({}), undefined);
  assert.equal(named(script, node), undefined);
  assert.deepEqual(named(node, node), { firecracker: node, jailer: node });
  assert.throws(() => realPair({ JAILER_BINARY_PATH: node }), /both or neither/);
  assert.throws(() => named("/none", node), /ENOENT/);
});
