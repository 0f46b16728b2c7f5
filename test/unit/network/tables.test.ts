import assert from "node:assert/strict";
import { test } from "node:test";
import { droppingChains } from "../../../src/network/foreign-tables.ts";
import { hostTable } from "../../../src/network/host-table.ts";
import { planSlots } from "../../../src/network/plan.ts";
import { slotRules } from "../../../src/network/slot-rules.ts";

const plan = planSlots({ tag: "0a1b2c", cidr: "10.200.0.0/16", uidBase: 200000 });
const empty = { egressInterface: undefined, egressAllow: [], resolvers: [], opened: [] };

/** The text without its sets: what must not change with what is in them. */
function rulesOf(text: string): string {
  return text.slice(text.indexOf("chain forward"));
}

test("the host's rules are the same for no machine and for a thousand", () => {
  const opened = Array.from({ length: 1000 }, (_unused, index) => plan.slot(index));
  const full = hostTable(plan, {
    egressInterface: "eth0",
    egressAllow: [{ base: 0x0a010000, prefix: 16 }],
    resolvers: ["10.1.0.2"],
    opened,
  });
  assert.equal(rulesOf(full), rulesOf(hostTable(plan, empty)));
  assert.match(full, /"ch0a1b2cv999" \. 10\.200\.7\.209/);
  assert.match(full, /set allowed \{[^}]*elements = \{ 10\.1\.0\.0\/16 \}/);
});

test("the table replaces an earlier one in the same transaction, and empty sets have no elements line", () => {
  const text = hostTable(plan, empty);
  assert.match(
    text,
    /^add table inet computer-host-0a1b2c\ndelete table inet computer-host-0a1b2c\ntable inet /,
  );
  const sets = text.slice(0, text.indexOf("set denied"));
  assert.doesNotMatch(sets, /elements/);
});

test("a pool outside the private ranges is denied too", () => {
  const elsewhere = planSlots({ tag: "0a1b2c", cidr: "198.18.0.0/16", uidBase: 200000 });
  assert.match(hostTable(elsewhere, empty), /set denied \{[^}]*\{[^}]*198\.18\.0\.0\/16[^}]*\}/);
  assert.doesNotMatch(hostTable(plan, empty).split("set denied")[1]?.split("chain")[0] ?? "", /10\.200/);
});

test("a slot's rules differ from another's in its two addresses only", () => {
  const one = slotRules(plan.slot(1));
  const other = slotRules(plan.slot(2));
  assert.notEqual(one, other);
  assert.equal(one.replaceAll("10.200.0.5", "10.200.0.7").replaceAll("10.200.0.4", "10.200.0.6"), other);
});

const chain = (family: string, table: string, policy: string) => ({
  chain: { family, table, name: "FORWARD", hook: "forward", policy },
});
const rule = (table: string, ...expr: object[]) => ({
  rule: { family: "ip", table, chain: "FORWARD", expr },
});
const found = (...nftables: object[]) => droppingChains(plan, JSON.stringify({ nftables }));

test("a foreign chain that drops forwarding is found by its policy or by its last rule", () => {
  assert.deepEqual(found(chain("ip", "filter", "drop")), ["ip filter FORWARD"]);
  assert.deepEqual(found(chain("ip", "filter", "accept")), []);
  const counter = { counter: { packets: 1, bytes: 2 } };
  const match = { match: { op: "==", left: { meta: { key: "iifname" } }, right: "docker0" } };
  assert.deepEqual(found(chain("ip", "filter", "accept"), rule("filter", counter, { drop: null })), [
    "ip filter FORWARD",
  ]);
  assert.deepEqual(found(chain("ip", "filter", "accept"), rule("filter", { reject: {} })), [
    "ip filter FORWARD",
  ]);
  assert.deepEqual(found(chain("ip", "filter", "accept"), rule("filter", match, { drop: null })), []);
  assert.deepEqual(found(chain("ip", "filter", "accept"), rule("filter", counter)), []);
});

test("chains that are ours, of IPv6, or that know our devices are no obstacle", () => {
  assert.deepEqual(found(chain("inet", "computer-host-ffffff", "drop")), []);
  assert.deepEqual(found(chain("ip6", "filter", "drop")), []);
  const known = { match: { op: "==", left: { meta: { key: "iifname" } }, right: "ch0a1b2cv*" } };
  assert.deepEqual(found(chain("ip", "filter", "drop"), rule("filter", known, { accept: null })), []);
});
