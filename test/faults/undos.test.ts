import assert from "node:assert/strict";
import { test } from "node:test";
import { filesFor, runWithout } from "../undos/suites.ts";
import { findUndos } from "../undos/undos.ts";
import { seeded } from "./seed.ts";

/** How many undos are tried. `make test-undos` tries all. */
const TRIED = 3;
/** What a fork goes through: tests that take two seconds see each undo of it. */
const DRAWN_FROM = ["bring-up", "fetch-snapshot", "fork"].map((name) => `src/host/${name}.ts`);
/** The tests named as the file, and the quick crash tests. */
const QUICK = 2;

test("an undo that does nothing turns a quick suite red", async (t) => {
  const undos = findUndos().filter(({ path }) => DRAWN_FROM.includes(path));
  const chosen = seeded(t).draw(undos, TRIED);
  assert.equal(chosen.length, TRIED);
  const sound = new Set<string>();
  for (const undo of chosen) {
    let missed: string | undefined;
    for (const file of filesFor(undo).slice(0, QUICK)) {
      if (!sound.has(file)) assert.deepEqual((await runWithout(undefined, file)).failed, []);
      sound.add(file);
      const { failed, reached } = await runWithout(undo.place, file);
      if (reached) missed = failed[0];
      if (missed !== undefined) break;
    }
    assert.ok(missed !== undefined, `nobody misses the undo at ${undo.place}`);
    t.diagnostic(`${undo.place}: ${missed}`);
  }
});
