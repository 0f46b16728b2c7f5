import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { sideBySide } from "../../../src/system/side-by-side.ts";

test("each item is taken once, and never more at a time than said", async () => {
  let under = 0;
  let most = 0;
  const taken: number[] = [];
  const items = Array.from({ length: 20 }, (_, index) => index);
  await sideBySide(items, 3, async (item) => {
    under += 1;
    most = Math.max(most, under);
    taken.push(item);
    await sleep(item % 4);
    under -= 1;
  });
  assert.deepEqual(taken, items);
  assert.equal(most, 3);
});

test("a failure is told, and nothing at all is content", async () => {
  await assert.rejects(
    sideBySide([1, 2], 1, (item) => Promise.reject(new Error(`of ${item}`))),
    /of 1/,
  );
  await sideBySide([], 4, () => Promise.reject(new Error("never")));
});
