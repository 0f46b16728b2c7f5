import assert from "node:assert/strict";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { removeTree } from "../../../src/system/files.ts";

/** Longer than a path may be, in all. */
const DEPTH = 60;

test("a tree is removed however deep it is, and no link in it is followed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "files-"));
  try {
    for (const name of ["trash", "outside", "work", "tree"]) mkdirSync(join(folder, name));
    writeFileSync(join(folder, "outside/kept"), "kept");
    // From its end on, each folder being put into the next one: no path is long while it is made.
    let inner = "";
    for (let depth = 0; depth < DEPTH; depth += 1) {
      const outer = join(folder, "work", String(depth));
      mkdirSync(outer);
      symlinkSync(join(folder, "outside"), join(outer, "link"));
      writeFileSync(join(outer, "file"), "");
      if (inner !== "") renameSync(inner, join(outer, "d".repeat(200)));
      inner = outer;
    }
    renameSync(inner, join(folder, "tree/deep"));
    const deepest = join(folder, "tree/deep", ...Array.from({ length: DEPTH - 1 }, () => "d".repeat(200)));
    assert.throws(() => lstatSync(deepest), { code: "ENAMETOOLONG" });
    await removeTree(join(folder, "tree"), join(folder, "trash"));
    assert.deepEqual(readdirSync(folder).sort(), ["outside", "trash", "work"]);
    assert.deepEqual(readdirSync(join(folder, "trash")), []);
    assert.equal(readFileSync(join(folder, "outside/kept"), "utf8"), "kept");
    await removeTree(join(folder, "missing"), join(folder, "trash"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
