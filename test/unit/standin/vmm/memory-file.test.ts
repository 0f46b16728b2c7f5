import assert from "node:assert/strict";
import { closeSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Fault } from "../../../../src/standin/vmm/fault.ts";
import { PAGE } from "../../../../src/standin/vmm/guest-memory.ts";
import { fillFromFile, openMemoryFile, writeMemoryFile } from "../../../../src/standin/vmm/memory-file.ts";

const BYTES = 4 << 20;

/** A guest's memory as a buffer: page `n` starts with the n-th of `pages`; the others were never touched. */
class FakeMemory {
  readonly bytes = BYTES;
  readonly content = Buffer.alloc(BYTES);
  readonly touched = new Set<number>();

  constructor(pages: Readonly<Record<number, number>> = {}) {
    for (const [page, value] of Object.entries(pages)) this.put(Number(page), value);
  }

  put(page: number, value: number): void {
    this.content[page * PAGE] = value;
    this.touched.add(page);
  }

  read(offset: number, into: Buffer): void {
    this.content.copy(into, 0, offset);
  }

  write(offset: number, from: Buffer): void {
    from.copy(this.content, offset);
    for (let at = 0; at < from.length; at += PAGE) this.touched.add((offset + at) / PAGE);
  }

  isTouched(offset: number, length: number): boolean {
    for (let at = offset; at < offset + length; at += PAGE) if (this.touched.has(at / PAGE)) return true;
    return false;
  }
}

function inFolder(check: (path: string) => void): void {
  const dir = mkdtempSync(join(tmpdir(), "memory-file-"));
  try {
    check(join(dir, "memory"));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** KiB that the file takes up. */
const allocated = (path: string): number => statSync(path).blocks / 2;

test("a full file is the memory, with holes where that is zero, whatever was there before", () => {
  inFolder((path) => {
    writeFileSync(path, Buffer.alloc(BYTES, 0xff));
    const memory = new FakeMemory({ 0: 1, 5: 5, 6: 0, 900: 9 });
    writeMemoryFile(path, memory, "Full");
    assert.ok(readFileSync(path).equals(memory.content));
    assert.ok(allocated(path) <= 64, `${allocated(path)} KiB`);
  });
});

test("a diff turns a former memory into this one, zeros too, and touches nothing else", () => {
  inFolder((path) => {
    const memory = new FakeMemory({ 0: 1, 5: 5, 900: 9 });
    writeMemoryFile(path, memory, "Full");
    memory.put(5, 0);
    memory.put(6, 6);
    writeMemoryFile(path, memory, "Diff");
    assert.ok(readFileSync(path).equals(memory.content));
    assert.ok(allocated(path) <= 64, `${allocated(path)} KiB`);
  });
});

test("a page that the guest gave back since the base is zero in the merged file", () => {
  inFolder((path) => {
    writeMemoryFile(path, new FakeMemory({ 5: 5 }), "Full");
    writeMemoryFile(path, new FakeMemory({ 900: 9 }), "Diff");
    assert.ok(readFileSync(path).equals(new FakeMemory({ 900: 9 }).content));
  });
});

test("a diff into a file of another length starts it anew", () => {
  inFolder((path) => {
    writeFileSync(path, Buffer.alloc(PAGE, 0xff));
    const memory = new FakeMemory({ 3: 3 });
    writeMemoryFile(path, memory, "Diff");
    assert.ok(readFileSync(path).equals(memory.content));
  });
});

test("what is loaded is what was saved, and untouched memory stays untouched", () => {
  inFolder((path) => {
    const saved = new FakeMemory({ 0: 1, 255: 2, 256: 3, 1023: 4 });
    writeMemoryFile(path, saved, "Full");
    const fd = openMemoryFile(path, BYTES);
    const loaded = new FakeMemory();
    fillFromFile(fd, loaded);
    closeSync(fd);
    assert.ok(loaded.content.equals(saved.content));
    assert.deepEqual([...loaded.touched], [0, 255, 256, 1023]);
  });
});

test("memory that is not blank is overwritten with the file's zeros", () => {
  inFolder((path) => {
    writeMemoryFile(path, new FakeMemory(), "Full");
    const fd = openMemoryFile(path, BYTES);
    const loaded = new FakeMemory({ 7: 7 });
    fillFromFile(fd, loaded);
    closeSync(fd);
    assert.ok(loaded.content.equals(Buffer.alloc(BYTES)));
  });
});

test("a file that is too short is refused, a longer one is not", () => {
  inFolder((path) => {
    writeFileSync(path, "");
    truncateSync(path, BYTES - 1);
    assert.throws(() => openMemoryFile(path, BYTES), Fault);
    truncateSync(path, BYTES + 1);
    closeSync(openMemoryFile(path, BYTES));
    assert.throws(() => openMemoryFile(`${path}-missing`, BYTES), /No such file or directory \(os error 2\)/);
  });
});

test("a file that cannot be written is a fault with the system's reason", () => {
  assert.throws(
    () => writeMemoryFile("/nowhere/memory", new FakeMemory(), "Full"),
    /Cannot perform open on the memory backing file: No such file or directory \(os error 2\)/,
  );
});
