import assert from "node:assert/strict";
import { test } from "node:test";
import { KeyedMutex } from "../../../src/system/mutex.ts";

/** Who holds a key, in the order in which they got it, and how to end them. */
function party() {
  const mutex = new KeyedMutex();
  const held: string[] = [];
  const come = (name: string, shared = false, key = "k") => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const done = (async () => {
      using _lock = await (shared ? mutex.acquireShared(key) : mutex.acquire(key));
      held.push(name);
      await promise;
    })();
    return async (): Promise<void> => {
      resolve();
      await done;
      await new Promise(setImmediate);
    };
  };
  return { mutex, held, come, settle: () => new Promise(setImmediate) };
}

test("one at a time holds a key, in the order they came, and another key is free", async () => {
  const { mutex, held, come, settle } = party();
  const first = come("first");
  const second = come("second");
  const other = come("other", false, "elsewhere");
  await settle();
  assert.deepEqual(held, ["first", "other"]);
  await first();
  assert.deepEqual(held, ["first", "other", "second"]);
  await second();
  await other();
  assert.ok(!mutex.isHeld("k") && !mutex.isHeld("elsewhere"));
});

test("those that share hold it together; who wants it alone waits for all before, and those after wait for it", async () => {
  const { mutex, held, come, settle } = party();
  const readers = [come("a", true), come("b", true)];
  await settle();
  assert.deepEqual(held, ["a", "b"]);
  const writer = come("writer");
  const late = come("late", true);
  await readers[1]?.();
  assert.deepEqual(held, ["a", "b"]);
  await readers[0]?.();
  assert.deepEqual(held, ["a", "b", "writer"]);
  await writer();
  assert.deepEqual(held, ["a", "b", "writer", "late"]);
  assert.ok(mutex.isHeld("k"));
  await late();
  assert.ok(!mutex.isHeld("k"));
});
