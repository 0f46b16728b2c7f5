import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { makePlayground, PLAYGROUND, type Place, placeIn } from "../support/playground.ts";
import { denied, plugGuest, probe } from "./support/fake-guest.ts";
import { makeRoot, RoomError } from "./support/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: it makes network namespaces";
const { public_address } = PLAYGROUND;

/** All that carries the tag: namespaces, host devices, tables, and the pool's route. */
async function tracesOf(tag: string, host: Place): Promise<string[]> {
  const links = (await host.run(["ip", "-br", "link"])).stdout
    .split("\n")
    .map((line) => line.split(/[@ ]/)[0] ?? "");
  const tables = (await host.run(["nft", "list", "tables"])).stdout.split("\n");
  const routes = (await host.run(["ip", "route", "show", "type", "unreachable"])).stdout.split("\n");
  return [
    ...readdirSync("/run/netns").filter((name) => name.includes(tag)),
    ...links.filter((name) => name.includes(tag)),
    ...tables.filter((name) => name.includes(tag)),
    ...routes.filter((route) => route !== ""),
  ];
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const end = performance.now() + 20_000; performance.now() < end; await sleep(50))
    if (await condition()) return;
  assert.fail(`it never came to be that ${what}`);
}

test("twenty who ask at once get twenty different slots, whole ones, and nothing is left when all is given back", {
  skip,
}, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host, { poolSize: 4 });
  await room.open();
  const slots = await Promise.all(Array.from({ length: 20 }, () => room.acquire()));
  for (const key of ["index", "netns", "host_device", "runtime_host", "host_address", "uid"] as const) {
    assert.equal(new Set(slots.map((slot) => slot[key])).size, 20, `${key} is never shared`);
  }
  for (const slot of slots) {
    const { stdout } = await placeIn(slot.netns).run(["sh", "-c", "ip -br link; nft list tables"]);
    assert.match(stdout, /uplink0@[^]*tap0 [^]*table inet computer-host/, `slot ${slot.index} is whole`);
  }
  await Promise.all(slots.map((slot) => room.release(slot)));
  await room.close();
  assert.deepEqual(await tracesOf(root.tag, playground.host), []);
  assert.equal(existsSync(join(root.claimsDir, `${root.tag}.json`)), false);
});

test("a pool with room for six refuses the seventh as full, and serves again after a release", {
  skip,
}, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host, { cidr: "10.200.0.0/28", poolSize: 8 });
  await room.open();
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => room.acquire()));
  const slots = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  const refusals = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
  assert.equal(slots.length, 6);
  assert.deepEqual(
    refusals.map((error: RoomError) => error.code),
    ["host_full", "host_full"],
  );
  const [first, second] = slots;
  assert.ok(first !== undefined && second !== undefined);
  await room.release(second);
  await room.release(first);
  assert.equal((await room.acquire()).index, second.index, "the one released longest ago comes back first");
  assert.equal((await room.acquire()).index, first.index);
});

test("one who gives up waiting costs no slot", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host, { poolSize: 0 });
  await room.open();
  await assert.rejects(room.acquire(1), RoomError);
  await until(
    async () => (await tracesOf(root.tag, playground.host)).length === 2,
    "only table and route are there",
  );
  const slot = await room.acquire();
  await room.release(slot);
  await room.close();
  assert.deepEqual(await tracesOf(root.tag, playground.host), []);
});

test("a slot that cannot be made leaves nothing, and the next who asks gets another", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host, { poolSize: 0 });
  await room.open();
  const stolen = `ch${root.tag}v0`;
  const altname = ["altname", stolen, "dev", PLAYGROUND.egress_device];
  await playground.host.run(["ip", "link", "property", "add", ...altname]);
  await assert.rejects(room.acquire(), /File exists/);
  assert.deepEqual(
    readdirSync("/run/netns").filter((name) => name.includes(root.tag)),
    [],
  );
  assert.equal((await room.acquire()).index, 1);
  await playground.host.run(["ip", "link", "property", "del", ...altname]);
});

test("after a kill in the middle of makings the next start removes the halves and keeps what is in use", {
  skip,
}, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using first = root.start(playground.host, { poolSize: 12 });
  await first.open();
  const slot = await first.acquire();
  await using guest = await plugGuest(slot);
  await first.openEgress(slot);
  await first.kill();
  // Halves of every kind, by hand: which of them a kill leaves is a matter of luck.
  await playground.host.run(["ip", "netns", "add", `ch-${root.tag}-70`]);
  await playground.host.run(["sh", "-c", `: > /run/netns/ch-${root.tag}-71`]);
  await playground.host.run([
    "ip",
    "link",
    "add",
    `ch${root.tag}v72`,
    "type",
    "veth",
    "peer",
    "name",
    "uplink0",
  ]);

  await using second = root.start(playground.host, { poolSize: 1 });
  await second.open([slot.index]);
  assert.ok(await probe(guest.place, "tcp", public_address, 80), "the way out of the one in use stayed open");
  const others = await Promise.all([second.acquire(), second.acquire(), second.acquire()]);
  assert.ok(!others.some(({ index }) => index === slot.index), "what is in use is not handed out");
  for (const other of others) await second.release(other);
  await second.release(slot);
  await second.close();
  await until(async () => (await tracesOf(root.tag, playground.host)).length === 0, "nothing is left");
});

test("a start that finds the table of a slot in use gone keeps its guest in until it is opened again", {
  skip,
}, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using first = root.start(playground.host);
  await first.open();
  const slot = await first.acquire();
  await using guest = await plugGuest(slot);
  await first.openEgress(slot);
  await first.kill();
  await playground.host.run(["nft", "flush", "ruleset"]);
  await playground.host.run(["ip", "link", "del", slot.host_device]);

  await using second = root.start(playground.host);
  await second.open([slot.index]);
  await denied(guest.place, "tcp", public_address, 80);
  await second.openEgress(slot);
  assert.ok(
    await probe(guest.place, "tcp", public_address, 80),
    "the veth pair that was lost has been made again",
  );
});

test("a firewall reload that flushes everything is noticed, named and mended", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host);
  await room.open();
  const slot = await room.acquire();
  await using guest = await plugGuest(slot);
  await room.openEgress(slot);
  assert.deepEqual(await room.warnings(), []);
  await playground.host.run(["nft", "flush", "ruleset"]);
  assert.ok((await room.warnings()).some(({ code }) => code === "table_was_removed"));
  assert.deepEqual(await room.warnings(), []);
  assert.ok(await probe(guest.place, "tcp", public_address, 80));
  await denied(guest.place, "tcp", "10.99.0.1", 80);
  await playground.host.run(["nft", "flush", "ruleset"]);
  await room.closeEgress(slot);
  await denied(guest.place, "tcp", public_address, 80);
});

test("a foreign table that drops forwarding is named and left alone", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host);
  await room.open();
  const slot = await room.acquire();
  await using guest = await plugGuest(slot);
  await room.openEgress(slot);
  await playground.host.run(["nft", "-f", "-"], {
    input:
      "table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n }\n}\n",
  });
  await denied(guest.place, "tcp", public_address, 80);
  const [warning] = await room.warnings();
  assert.equal(warning?.code, "foreign_forward_drop");
  assert.match(warning.text, /ip filter FORWARD/);
  const { stdout } = await playground.host.run(["nft", "list", "table", "ip", "filter"]);
  assert.match(stdout, /policy drop/);
  await playground.host.run(["nft", "-f", "-"], {
    input: `insert rule ip filter FORWARD iifname "ch${root.tag}v*" accept
insert rule ip filter FORWARD oifname "ch${root.tag}v*" accept
`,
  });
  assert.ok(await probe(guest.place, "tcp", public_address, 80), "with what the warning says it passes");
  assert.deepEqual(await room.warnings(), []);
});

test("a pool that a route of the host overlaps is refused by name, and nothing is begun", {
  skip,
}, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  for (const route of ["10.200.5.0/24", "10.0.0.0/8"]) {
    await playground.host.run(["ip", "route", "add", route, "dev", PLAYGROUND.egress_device]);
    await using refused = root.start(playground.host);
    await assert.rejects(refused.open(), (error: Error) => {
      assert.match(
        error.message,
        new RegExp(`${route.replaceAll(".", "\\.")}.*FIRECRACKER_HOST_NETWORK_CIDR`),
      );
      return true;
    });
    assert.deepEqual(await tracesOf(root.tag, playground.host), []);
    await playground.host.run(["ip", "route", "del", route]);
  }
  // Halves of a default route, as a VPN sets them, and a second start over our own routes are no clash.
  await playground.host.run(["ip", "route", "add", "0.0.0.0/1", "via", PLAYGROUND.outside_address]);
  await using room = root.start(playground.host);
  await room.open();
  const slot = await room.acquire();
  await room.kill();
  await using again = root.start(playground.host);
  await again.open([slot.index]);
});

test("two daemons share a host with pools of their own, and not with the same", { skip }, async () => {
  const claimsDir = await mkdtemp(join(tmpdir(), "chclaims-"));
  try {
    await using playground = await makePlayground();
    await using oneRoot = await makeRoot(claimsDir);
    await using otherRoot = await makeRoot(claimsDir);
    await using one = oneRoot.start(playground.host);
    await one.open();
    await using other = otherRoot.start(playground.host);
    await assert.rejects(other.open(), /10\.200\.0\.0\/16.*FIRECRACKER_HOST_NETWORK_CIDR/);
    await using moved = otherRoot.start(playground.host, { cidr: "10.201.0.0/16" });
    await moved.open();
    const slots = [await one.acquire(), await moved.acquire()];
    assert.notEqual(slots[0]?.runtime_host, slots[1]?.runtime_host);
    // The same pool in another network namespace meets nobody.
    await using elsewhere = await makePlayground();
    await using thirdRoot = await makeRoot(claimsDir);
    await using third = thirdRoot.start(elsewhere.host);
    await third.open();
  } finally {
    await rm(claimsDir, { recursive: true });
  }
});

test("an address of the pool that no machine has never leaves the host", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host, { poolSize: 0 });
  await room.open();
  await playground.outside.run(["ip", "addr", "add", "10.200.9.9/32", "dev", "lo"]);
  await denied(playground.host, "tcp", "10.200.9.9", 80);
  await playground.host.run(["ip", "route", "del", "unreachable", "10.200.0.0/16"]);
  assert.ok(await probe(playground.host, "tcp", "10.200.9.9", 80), "without the route it would");
});

test("without a way out the room opens and says so; an interface that is not there is refused", {
  skip,
}, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using wrong = root.start(playground.host, { egressInterface: "eth9" });
  await assert.rejects(wrong.open(), /FIRECRACKER_HOST_EGRESS_INTERFACE.*eth9/);
  await playground.host.run(["ip", "route", "del", "default"]);
  await using room = root.start(playground.host);
  await room.open();
  assert.deepEqual(
    (await room.warnings()).map(({ code }) => code),
    ["no_egress_interface"],
  );
});
