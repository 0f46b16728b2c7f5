import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedWork } from "../../../src/storage/shared-work.ts";

test("work is done once for all who wait, and anew for those who come later", async () => {
  const shared = new SharedWork<number>();
  let runs = 0;
  const work = async (): Promise<number> => {
    await Promise.resolve();
    runs += 1;
    return runs;
  };
  assert.deepEqual(
    await Promise.all([shared.run("a", work), shared.run("a", work), shared.run("b", work)]),
    [1, 1, 2],
  );
  assert.equal(await shared.run("a", work), 3);
});

test("one who leaves ends nothing; when the last one leaves the work is aborted, and the next one starts anew", async () => {
  const shared = new SharedWork<string>();
  const signals: AbortSignal[] = [];
  const endless = (signal: AbortSignal): Promise<string> => {
    signals.push(signal);
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted"))));
  };
  const first = new AbortController();
  const second = new AbortController();
  const one = shared.run("a", endless, first.signal);
  const two = shared.run("a", endless, second.signal);
  first.abort(new Error("left"));
  await assert.rejects(one, /left/);
  assert.equal(signals[0]?.aborted, false);
  second.abort(new Error("left too"));
  await assert.rejects(two, /left too/);
  assert.equal(signals[0]?.aborted, true);
  assert.equal(await shared.run("a", () => Promise.resolve("fresh")), "fresh");
  assert.equal(signals.length, 1);
});

test("a failure reaches all who wait and is not remembered", async () => {
  const shared = new SharedWork<string>();
  const fail = (): Promise<string> => Promise.reject(new Error("broken"));
  const results = await Promise.allSettled([shared.run("a", fail), shared.run("a", fail)]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ["rejected", "rejected"],
  );
  assert.equal(await shared.run("a", () => Promise.resolve("works")), "works");
});
