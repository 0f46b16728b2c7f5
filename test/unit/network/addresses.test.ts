import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import {
  type Cidr,
  contains,
  formatAddress,
  formatCidr,
  overlaps,
  parseAddress,
  parseCidr,
  sizeOf,
  withoutContained,
} from "../../../src/network/addresses.ts";

const address = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const cidr: fc.Arbitrary<Cidr> = fc
  .tuple(address, fc.integer({ min: 0, max: 32 }))
  .map(([base, prefix]) => ({ base: base - (base % 2 ** (32 - prefix)), prefix }));

/** The definition itself, address by address at the block's two ends. */
function holds(block: Cidr, value: number): boolean {
  return value >= block.base && value < block.base + sizeOf(block);
}

test("every address and block survives being written and read", () => {
  fc.assert(fc.property(address, (value) => assert.equal(parseAddress(formatAddress(value)), value)));
  fc.assert(fc.property(cidr, (block) => assert.deepEqual(parseCidr(formatCidr(block)), block)));
});

test("only dotted quads are addresses, and only aligned blocks are blocks", () => {
  for (const text of [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "256.1.1.1",
    "1.2.3.-4",
    "::1",
    "1.2.3.4 ",
    "0x1.2.3.4",
  ]) {
    assert.equal(parseAddress(text), undefined, text);
  }
  for (const text of ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "/8", "10.0.0.0/08"]) {
    assert.equal(parseCidr(text), undefined, text);
  }
  assert.deepEqual(parseCidr("10.0.0.1"), { base: 0x0a000001, prefix: 32 });
  assert.equal(formatAddress(0xfffffffe), "255.255.255.254");
});

test("two blocks overlap exactly when one holds the other's first address", () => {
  fc.assert(
    fc.property(cidr, cidr, (one, other) => {
      assert.equal(overlaps(one, other), holds(one, other.base) || holds(other, one.base));
      assert.equal(overlaps(one, other), overlaps(other, one));
      const last = other.base + sizeOf(other) - 1;
      assert.equal(contains(one, other), holds(one, other.base) && holds(one, last));
    }),
  );
});

test("leaving contained blocks out leaves the same addresses and no overlap", () => {
  fc.assert(
    fc.property(fc.array(cidr, { maxLength: 12 }), address, (blocks, value) => {
      const kept = withoutContained(blocks);
      assert.equal(
        kept.some((block) => holds(block, value)),
        blocks.some((block) => holds(block, value)),
      );
      for (const block of blocks) assert.ok(kept.some((larger) => contains(larger, block)));
      for (const [place, one] of kept.entries()) {
        for (const other of kept.slice(place + 1)) assert.ok(!overlaps(one, other));
      }
    }),
  );
});
