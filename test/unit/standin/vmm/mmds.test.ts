import assert from "node:assert/strict";
import { test } from "node:test";

import { MetadataStore } from "../../../../src/standin/vmm/mmds.ts";

test("a patch merges objects, replaces the rest and removes by null", () => {
  const store = new MetadataStore(1000);
  store.put({ a: 1, b: { c: 2, d: [1, 2] } });
  store.patch({ a: null, b: { d: [3], e: { f: null, g: 1 } } });
  assert.deepEqual(store.value, { b: { c: 2, d: [3], e: { g: 1 } } });
});

test("a store that was never filled can't be patched", () => {
  assert.throws(() => new MetadataStore(1000).patch({}), {
    message: "MMDS error: The MMDS data store is not initialized.",
  });
});

test("what does not fit is refused with 413 and leaves the store as it was", () => {
  const store = new MetadataStore(20);
  store.put({ a: "b" });
  assert.throws(() => store.patch({ a: "c".repeat(20) }), { name: "Fault", status: 413 });
  assert.deepEqual(store.value, { a: "b" });
});
