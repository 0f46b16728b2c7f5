import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openWritten } from "../../../src/storage/vmm-written.ts";

function isOpen(path: string): boolean {
  return readdirSync("/proc/self/fd").some((descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`) === path;
    } catch {
      // The descriptor of the listing itself.
      return false;
    }
  });
}

test("a file that is not what the VMM was asked for is refused, and not kept open", async () => {
  const folder = mkdtempSync(join(tmpdir(), "written-"));
  try {
    const path = join(folder, "memory");
    writeFileSync(path, "four");
    const expected = { what: "the memory", uid: process.getuid?.() ?? 0, minBytes: 4, maxBytes: 4 };
    {
      await using written = await openWritten(path, expected);
      assert.equal(written.size, 4);
      assert.ok(isOpen(path));
    }
    assert.ok(!isOpen(path));
    await assert.rejects(openWritten(path, { ...expected, minBytes: 5, maxBytes: 5 }), {
      code: "vmm_failed",
    });
    assert.ok(!isOpen(path));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
