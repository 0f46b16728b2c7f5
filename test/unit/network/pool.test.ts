import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { AppError } from "../../../src/contract/errors.ts";
import { planSlots } from "../../../src/network/plan.ts";
import { SlotPool } from "../../../src/network/pool.ts";
import type { Slot } from "../../../src/network/types.ts";
import { silentLog } from "../../../src/system/log.ts";

/** Six slots, and a host of nothing but a set: making what is there or unmaking what is not is an error. */
function makePool(
  options: { size?: number; inUse?: number[]; failing?: () => boolean; slow?: () => Promise<void> } = {},
) {
  const plan = planSlots({ tag: "0a1b2c", cidr: "10.200.0.0/28", uidBase: 200000 });
  const host = new Set<number>(options.inUse);
  const pool = new SlotPool(
    {
      plan,
      size: options.size ?? 0,
      log: silentLog,
      make: async (slot) => {
        await options.slow?.();
        await Promise.resolve();
        if (options.failing?.() === true) throw new Error("cannot be made");
        assert.ok(!host.has(slot.index), `slot ${slot.index} is made twice`);
        host.add(slot.index);
      },
      unmake: async (slot) => {
        await Promise.resolve();
        assert.ok(host.delete(slot.index), `slot ${slot.index} is unmade and was not there`);
      },
    },
    options.inUse ?? [],
  );
  return { plan, host, pool };
}

test("whatever comes and goes, no slot is held twice and none is lost", async () => {
  const step = fc.oneof(
    fc.constant("acquire" as const),
    fc.record({ preferred: fc.nat({ max: 7 }) }),
    fc.nat({ max: 5 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.nat({ max: 3 }), async (steps, size) => {
      const { pool, host } = makePool({ size });
      const held: Slot[] = [];
      for (const next of steps) {
        const preferred = typeof next === "object" ? next.preferred : undefined;
        if (typeof next === "number") {
          const [slot] = held.splice(next, 1);
          if (slot !== undefined) pool.release(slot);
        } else if (held.length < 6) {
          const free = !held.some(({ index }) => index === preferred) && (preferred ?? 6) < 6;
          const slot = await pool.acquire(undefined, preferred);
          held.push(slot);
          if (free) assert.equal(slot.index, preferred, "what is free is given to who asks for it");
        } else await assert.rejects(pool.acquire(undefined, preferred), AppError);
        assert.equal(new Set(held.map(({ index }) => index)).size, held.length);
      }
      await pool.close();
      assert.deepEqual(host, new Set(held.map(({ index }) => index)));
    }),
    { numRuns: 60 },
  );
});

test("released slots come back in the order of their release, after those never used", async () => {
  const { pool } = makePool();
  const slots = [await pool.acquire(), await pool.acquire(), await pool.acquire(), await pool.acquire()];
  for (const place of [2, 0, 3]) pool.release(slots[place] ?? assert.fail());
  const next: number[] = [];
  while (next.length < 5) next.push((await pool.acquire()).index);
  assert.deepEqual(next, [4, 5, 2, 0, 3]);
});

test("a slot that was just given back comes again to who asks for it, and to nobody else at the same time", async () => {
  const { pool } = makePool({ size: 2, inUse: [3] });
  const first = await pool.acquire();
  pool.release(first);
  const both = await Promise.all([
    pool.acquire(undefined, first.index),
    pool.acquire(undefined, first.index),
  ]);
  assert.equal(both[0].index, first.index);
  assert.notEqual(both[1].index, first.index);
  const others = await Promise.all([pool.acquire(undefined, 3), pool.acquire(undefined, 17), pool.acquire()]);
  assert.equal(new Set([...both, ...others, { index: 3 }].map(({ index }) => index)).size, 6);
  await assert.rejects(pool.acquire(undefined, 3), (error: AppError) => error.code === "host_full");
});

test("one who asks for a slot and gives up meanwhile holds none", async () => {
  const gate = Promise.withResolvers<void>();
  const { pool, host } = makePool({ slow: () => gate.promise });
  const leaving = new AbortController();
  const asked = pool.acquire(leaving.signal, 4);
  const refused = assert.rejects(asked, /gone/);
  await Promise.resolve();
  leaving.abort(new Error("gone"));
  gate.resolve();
  await refused;
  await pool.close();
  assert.equal(host.size, 0);
});

test("numbers in use at the start are not handed out before they are released", async () => {
  const { pool, plan } = makePool({ inUse: [1, 4] });
  const slots = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire()]);
  assert.deepEqual(new Set(slots.map(({ index }) => index)), new Set([0, 2, 3, 5]));
  await assert.rejects(pool.acquire(), (error: AppError) => error.code === "host_full");
  pool.release(plan.slot(4));
  pool.release(plan.slot(4));
  assert.equal((await pool.acquire()).index, 4);
});

test("one who gives up gets the signal's reason, and the slot made meanwhile serves the next", async () => {
  const gate = Promise.withResolvers<void>();
  const { pool, host } = makePool({ slow: () => gate.promise });
  const leaving = new AbortController();
  const first = pool.acquire(leaving.signal);
  const second = pool.acquire();
  leaving.abort(new Error("gone"));
  await assert.rejects(first, /gone/);
  gate.resolve();
  const slot = await second;
  await pool.close();
  assert.deepEqual([...host], [slot.index], "what nobody waited for has been unmade");
});

test("a making that fails is told to the one who waits, and does not repeat itself for the pool", async () => {
  let makings = 0;
  let broken = true;
  const { pool } = makePool({
    size: 3,
    failing: () => {
      makings += 1;
      return broken;
    },
  });
  await assert.rejects(pool.acquire(), /cannot be made/);
  await new Promise(setImmediate);
  const before = makings;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(makings, before, "it rests until somebody asks");
  broken = false;
  await pool.acquire();
  await pool.close();
});

test("after close nobody gets a slot, waiting or new", async () => {
  const gate = Promise.withResolvers<void>();
  const { pool, host } = makePool({ size: 2, slow: () => gate.promise });
  const waiting = pool.acquire();
  const closing = pool.close();
  await assert.rejects(waiting, (error: AppError) => error.code === "shutting_down");
  gate.resolve();
  await closing;
  await assert.rejects(pool.acquire(), (error: AppError) => error.code === "shutting_down");
  assert.equal(host.size, 0);
});
