import assert from "node:assert/strict";
import { test } from "node:test";

import { has64BitEntry, kernelImageKind } from "../../../../src/standin/shared/kernel-image.ts";

function bzImage(version: number, flags: number): Buffer {
  const head = Buffer.alloc(4096);
  head.write("HdrS", 0x202, "latin1");
  head.writeUInt16LE(version, 0x206);
  head.writeUInt16LE(flags, 0x236);
  return head;
}

test("a kernel is known by its first bytes", () => {
  assert.equal(kernelImageKind(bzImage(0x20f, 1)), "bzimage");
  assert.equal(kernelImageKind(Buffer.from("\x7fELF and more", "latin1")), "elf");
  assert.equal(kernelImageKind(Buffer.from("#!/bin/sh\n")), undefined);
  assert.equal(kernelImageKind(Buffer.alloc(0)), undefined);
});

test("only a bzImage of protocol 2.12 that says so has a 64-bit entry", () => {
  assert.equal(has64BitEntry(bzImage(0x20c, 1)), true);
  assert.equal(has64BitEntry(bzImage(0x20b, 1)), false);
  assert.equal(has64BitEntry(bzImage(0x20f, 2)), false);
  assert.equal(has64BitEntry(Buffer.from("short")), false);
});
