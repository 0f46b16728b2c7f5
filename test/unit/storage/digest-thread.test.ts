import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { open, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { digestInThread } from "../../../src/storage/digest-thread.ts";
import { sha256, temporaryFolder } from "./support.ts";

const PAGE = 4096;
const MIB = 1024 * 1024;

/** Contents whose zeros lie at, across and beside the borders of pages and of what is read at once. */
const CONTENTS: Readonly<Record<string, () => Buffer>> = {
  empty: () => Buffer.alloc(0),
  "one byte": () => Buffer.from([1]),
  "one zero": () => Buffer.alloc(1),
  "zeros only": () => Buffer.alloc(3 * MIB + 5),
  "no zero at all": () => Buffer.alloc(MIB + 1, 1),
  "a byte in each second page": () => {
    const bytes = Buffer.alloc(2 * MIB + 100);
    for (let at = PAGE - 1; at < bytes.length; at += 2 * PAGE) bytes[at] = 1;
    return bytes;
  },
  "a hole across what is read at once": () => {
    const bytes = randomBytes(3 * MIB);
    return bytes.fill(0, MIB - 2 * PAGE - 1, MIB + 3 * PAGE + 1);
  },
  "an end that is not zero and no page": () => {
    const bytes = Buffer.alloc(MIB + PAGE + 10);
    bytes[bytes.length - 1] = 1;
    return bytes;
  },
};

test("a file is hashed, and copied with a hole for each page of zeros", async (t) => {
  const folder = await temporaryFolder(t);
  for (const [name, make] of Object.entries(CONTENTS)) {
    const bytes = make();
    await writeFile(join(folder, "source"), bytes);
    await writeFile(join(folder, "target"), "");
    await using source = await open(join(folder, "source"));
    await using target = await open(join(folder, "target"), "r+");
    const expected = { sha256: sha256(bytes), size_bytes: bytes.length };
    const job = { source: source.fd, length: bytes.length };
    assert.deepEqual(await digestInThread(job), expected, name);
    assert.deepEqual(await digestInThread({ ...job, target: target.fd }), expected, name);
    assert.equal(sha256(await readFile(join(folder, "target"))), expected.sha256, name);
    await target.sync();
    const filled = Array.from({ length: Math.ceil(bytes.length / PAGE) }, (_, page) =>
      bytes.subarray(page * PAGE, (page + 1) * PAGE).some((byte) => byte !== 0),
    ).filter(Boolean).length;
    // Many short extents cost the filesystem some blocks of its own.
    assert.ok((await stat(join(folder, "target"))).blocks * 512 <= filled * PAGE * 1.05, name);
  }
});

test("no more is read than was asked for, whatever the file has become since", async (t) => {
  const path = join(await temporaryFolder(t), "source");
  const bytes = randomBytes(2 * MIB);
  await writeFile(path, bytes);
  await using source = await open(path);
  const part = await digestInThread({ source: source.fd, length: MIB + 7 });
  assert.deepEqual(part, { sha256: sha256(bytes.subarray(0, MIB + 7)), size_bytes: MIB + 7 });
  assert.equal((await digestInThread({ source: source.fd, length: 9 * MIB })).size_bytes, bytes.length);
});

test("many at a time wait for each other; one that fails says so with its code and holds up nobody", async (t) => {
  const path = join(await temporaryFolder(t), "source");
  const bytes = randomBytes(MIB);
  await writeFile(path, bytes);
  await using source = await open(path);
  const work = Array.from({ length: 9 }, (_, index) =>
    digestInThread({ source: index % 3 === 1 ? 999_999 : source.fd, length: MIB }),
  );
  for (const [index, result] of (await Promise.allSettled(work)).entries()) {
    if (result.status === "fulfilled") assert.equal(result.value.sha256, sha256(bytes));
    else assert.equal(result.reason.code, "EBADF");
    assert.equal(result.status, index % 3 === 1 ? "rejected" : "fulfilled");
  }
  assert.equal((await digestInThread({ source: source.fd, length: MIB })).sha256, sha256(bytes));
});
