import assert from "node:assert/strict";
import { test } from "node:test";

import { instanceIdFault } from "../../../../src/standin/shared/instance-id.ts";

test("letters, digits and hyphens make an id, up to 64 of them", () => {
  for (const id of ["a", "-", "A-1", "0".repeat(64)]) assert.equal(instanceIdFault(id), undefined, id);
});

test("a bad character is named with its place", () => {
  assert.equal(instanceIdFault("ab_c")?.sentence, "Invalid char (_) at position 2");
  assert.equal(instanceIdFault("../a")?.debug, "InvalidChar('.', 0)");
  assert.equal(instanceIdFault("a/b")?.debug, "InvalidChar('/', 1)");
});

test("an id that is empty or too long is refused by its length in bytes", () => {
  assert.equal(instanceIdFault("")?.debug, "InvalidLen(0, 1, 64)");
  assert.equal(instanceIdFault("a".repeat(65))?.debug, "InvalidLen(65, 1, 64)");
  assert.equal(instanceIdFault("é".repeat(40))?.debug, "InvalidLen(80, 1, 64)");
});
