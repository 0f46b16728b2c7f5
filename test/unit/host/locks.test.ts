import assert from "node:assert/strict";
import { test } from "node:test";
import { acquireAll, unlessEnded } from "../../../src/host/locks.ts";
import { KeyedMutex } from "../../../src/system/mutex.ts";

const never = new AbortController().signal;

test("those that want the same locks in opposite orders each get them", async () => {
  const locks = new KeyedMutex();
  const done: string[] = [];
  const take = async (name: string, keys: readonly string[]) => {
    using _held = await acquireAll(locks, keys, never);
    await new Promise(setImmediate);
    done.push(name);
  };
  await Promise.all([
    take("first", ["a", "b", "c"]),
    take("second", ["c", "b", "a"]),
    take("third", ["b", "a", "b"]),
  ]);
  assert.deepEqual(done.sort(), ["first", "second", "third"]);
  assert.ok(!["a", "b", "c"].some((key) => locks.isHeld(key)));
});

test("whoever is told to end while it waits holds nothing, also not later", async () => {
  const locks = new KeyedMutex();
  const holder = await locks.acquire("b");
  const end = new AbortController();
  const waiting = assert.rejects(acquireAll(locks, ["a", "b", "c"], end.signal), /enough/);
  await new Promise(setImmediate);
  assert.ok(locks.isHeld("a"));
  end.abort(new Error("enough"));
  await waiting;
  assert.ok(!locks.isHeld("a"));
  holder[Symbol.dispose]();
  await new Promise(setImmediate);
  assert.ok(!locks.isHeld("b"));
});

test("whoever was told to end before it asks does not get the lock either", async () => {
  const locks = new KeyedMutex();
  await assert.rejects(unlessEnded(locks.acquire("a"), AbortSignal.abort(new Error("enough"))), /enough/);
  await new Promise(setImmediate);
  assert.ok(!locks.isHeld("a"));
});
