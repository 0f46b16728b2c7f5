import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BENCHES } from "../../bench/benches.ts";
import { type Comparison, interleave, percentile, ratio } from "../../bench/measure.ts";
import { makeStage } from "../../bench/stage.ts";
import { plot, table, write } from "../../bench/report.ts";

test("a percentile is a time that was measured, and a ratio lies in its interval", () => {
  const times = [5, 1, 4, 2, 3];
  assert.deepEqual(
    [0.01, 0.5, 0.99].map((part) => percentile(times, part)),
    [1, 3, 5],
  );
  assert.throws(() => percentile([], 0.5), RangeError);
  const same = ratio(times, times);
  assert.equal(same.ratio, 1);
  assert.ok(same.low <= 1 && same.high >= 1);
  assert.equal(ratio([10, 10, 10], [5, 5, 5]).high, 2);
});

test("both sides are taken in turn, and the first pair is not kept", async () => {
  const order: string[] = [];
  const side = (name: string, first: number) => {
    let next = first;
    return () => {
      order.push(name);
      next += 1;
      return Promise.resolve(next);
    };
  };
  assert.deepEqual(await interleave(2, side("a", 0), side("b", 10)), { a: [2, 3], b: [12, 13] });
  assert.deepEqual(order, ["a", "b", "a", "b", "a", "b"]);
});

// No figure is judged here: on a busy machine it would mean nothing. The benches themselves ask the oracle.
test("each bench runs, and tells figures of a sane shape", async (t) => {
  await using stage = await makeStage();
  const all: Comparison[] = [];
  for (const [name, bench] of Object.entries(BENCHES)) {
    await t.test(name, async () => {
      const comparisons = await bench(stage, { samples: 2, many: 4 });
      assert.ok(comparisons.length > 0);
      for (const { a, b, goal } of comparisons) {
        assert.ok(a.length >= 2 && a.length === b.length, "both sides were taken as often");
        assert.ok([...a, ...b].every((time) => Number.isFinite(time) && time > 0));
        assert.ok(goal >= 1);
      }
      all.push(...comparisons);
    });
  }
  const folder = mkdtempSync("/var/tmp/ch-bench-");
  try {
    await write(folder, all);
    for (const { name } of all) {
      assert.ok(table(all).includes(`| ${name} |`));
      assert.ok(plot(all).includes(name));
    }
    assert.match(readFileSync(join(folder, "results.md"), "utf8"), /^- processor: /);
    assert.match(readFileSync(join(folder, "results.svg"), "utf8"), /^<svg [^]*<\/svg>\n$/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
