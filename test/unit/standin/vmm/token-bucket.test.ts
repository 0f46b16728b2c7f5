import assert from "node:assert/strict";
import { test } from "node:test";

import { tokenBucketOf } from "../../../../src/standin/vmm/token-bucket.ts";

test("a bucket gives what is in it, then what came in since, and never more than its size", () => {
  let now = 0;
  const bucket = tokenBucketOf({ size: 100, one_time_burst: null, refill_time: 1000 }, () => now);
  assert.equal(bucket?.take(150), 100);
  assert.equal(bucket?.take(1), 0);
  now = 50;
  assert.equal(bucket?.take(100), 5);
  now = 60_000;
  assert.equal(bucket?.take(1000), 100);
});

test("the burst is given once, before the rest", () => {
  let now = 0;
  const bucket = tokenBucketOf({ size: 10, one_time_burst: 100, refill_time: 10 }, () => now);
  assert.equal(bucket?.take(60), 60);
  assert.equal(bucket?.take(60), 50);
  now = 10_000;
  assert.equal(bucket?.take(60), 10);
});

test("many small takes get no more than the rate", () => {
  let now = 0;
  const bucket = tokenBucketOf({ size: 1000, one_time_burst: null, refill_time: 1000 }, () => now);
  let taken = 0;
  for (; now < 5000; now += 0.1) taken += bucket?.take(7) ?? 0;
  assert.ok(taken <= 6000 && taken > 5900, String(taken));
});

test("no configuration and a zero set no limit", () => {
  assert.equal(
    tokenBucketOf(null, () => 0),
    undefined,
  );
  assert.equal(
    tokenBucketOf({ size: 0, one_time_burst: null, refill_time: 1 }, () => 0),
    undefined,
  );
  assert.equal(
    tokenBucketOf({ size: 1, one_time_burst: null, refill_time: 0 }, () => 0),
    undefined,
  );
});
