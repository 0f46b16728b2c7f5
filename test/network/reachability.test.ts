import assert from "node:assert/strict";
import { test } from "node:test";
import { GUEST_NETWORK } from "../../src/network/types.ts";
import { makePlayground, PLAYGROUND, type Place } from "../support/playground.ts";
import { denied, plugGuest, probe } from "./support/fake-guest.ts";
import { serve } from "./support/listener.ts";
import { makeRoot, type Room } from "./support/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: it makes network namespaces";
const { public_address, private_addresses, private_resolver, host_address } = PLAYGROUND;

/** A playground with one room in it and a guest whose way out is open. */
async function openGuest(stack: AsyncDisposableStack) {
  const playground = stack.use(await makePlayground());
  const root = stack.use(await makeRoot());
  const room = stack.use(root.start(playground.host));
  await room.open();
  return { playground, root, room, ...(await addGuest(stack, room)) };
}

async function addGuest(stack: AsyncDisposableStack, room: Room) {
  const slot = await room.acquire();
  const guest = stack.use(await plugGuest(slot));
  await room.openEgress(slot);
  return { slot, guest };
}

/** Lifts one rule: puts `rule` before all others of a chain of the table. */
async function lift(place: Place, table: string, chain: string, rule: string): Promise<void> {
  await place.run(["nft", "insert", "rule", "inet", table, chain, ...rule.split(" ")]);
}

test("a guest reaches the outside only while its way out is open, under the host's address", {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const playground = stack.use(await makePlayground());
  const root = stack.use(await makeRoot());
  const room = stack.use(root.start(playground.host));
  await room.open();
  const slot = await room.acquire();
  const guest = stack.use(await plugGuest(slot));
  await denied(guest.place, "tcp", public_address, 80);
  await room.openEgress(slot);
  await room.openEgress(slot);
  const answer = await probe(guest.place, "tcp", public_address, 80);
  assert.deepEqual(JSON.parse(answer ?? "null"), { peer: host_address, local: public_address, port: 80 });
  assert.ok(await probe(guest.place, "udp", public_address, 7), "UDP passes too");
  assert.ok(await probe(guest.place, "tcp", public_address, 25), "mail is not held back");
  await room.closeEgress(slot);
  await room.closeEgress(slot);
  await denied(guest.place, "tcp", public_address, 80);
});

test("closing a guest's way out cuts a connection that is open, in both directions", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { room, slot, guest } = await openGuest(stack);
  const echo = stack.use(await serve(guest.place, "echo-client", public_address, 80));
  assert.equal(await echo.say("one"), "one");
  await room.closeEgress(slot);
  assert.equal(await echo.say("two"), undefined);
  await room.openEgress(slot);
  // The stack sends it again by itself: the connection was cut, not broken.
  assert.equal(await echo.say(""), "two");
});

test("a guest reaches no private range, and each once that one range is taken out of the set", {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const { playground, root, guest } = await openGuest(stack);
  const ranges = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"];
  await Promise.all(private_addresses.map((address) => denied(guest.place, "tcp", address, 80)));
  const denials = `computer-host-${root.tag} denied`;
  for (const [place, address] of private_addresses.entries()) {
    const range = ranges[place];
    await playground.host.run(["nft", `delete element inet ${denials} { ${range} }`]);
    assert.ok(await probe(guest.place, "tcp", address, 80), `${address} answers once ${range} is lifted`);
    await playground.host.run(["nft", `add element inet ${denials} { ${range} }`]);
  }
  await Promise.all(private_addresses.map((address) => denied(guest.place, "tcp", address, 80)));
});

test("of its resolver a guest reaches port 53 and nothing else; of another nothing", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { room, guest } = await openGuest(stack);
  assert.deepEqual(await room.resolvers(), [private_resolver]);
  assert.equal(await probe(guest.place, "dns-udp", private_resolver, 53), "203.0.113.7");
  assert.equal(await probe(guest.place, "dns-tcp", private_resolver, 53), "203.0.113.7");
  await denied(guest.place, "tcp", private_resolver, 80);
  await denied(guest.place, "udp", private_resolver, 7);
  await denied(guest.place, "dns-udp", "10.99.0.1", 53);
});

test("a private network that the settings allow is reached, its neighbours are not", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const playground = stack.use(await makePlayground());
  const root = stack.use(await makeRoot());
  const room = stack.use(
    root.start(playground.host, { egressAllow: ["10.99.0.0/28", "10.99.0.1", "100.64.1.1"] }),
  );
  await room.open();
  const { guest } = await addGuest(stack, room);
  assert.ok(await probe(guest.place, "tcp", "10.99.0.1", 80));
  assert.ok(await probe(guest.place, "tcp", "100.64.1.1", 80));
  await denied(guest.place, "tcp", private_resolver, 80);
  await denied(guest.place, "tcp", "192.168.77.1", 80);
});

test("the host reaches a guest, a guest reaches no address of the host", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { playground, root, slot, guest } = await openGuest(stack);
  stack.use(await serve(guest.place, "listener", "0.0.0.0", 22));
  stack.use(await serve(playground.host, "listener", "0.0.0.0", 22));
  const seen = await probe(playground.host, "tcp", slot.runtime_host, 22);
  assert.equal(seen, slot.host_address, "the guest sees the host's end of its own slot as the peer");
  const addresses = [host_address, slot.host_address];
  for (const address of addresses) await denied(guest.place, "tcp", address, 22);
  await denied(guest.place, "tcp", GUEST_NETWORK.gateway_address, 22);
  await lift(playground.host, `computer-host-${root.tag}`, "slot_to_host", "tcp dport 22 accept");
  for (const address of addresses)
    assert.ok(await probe(guest.place, "tcp", address, 22), `${address} once lifted`);
});

test("the gateway's own namespace has nothing for a guest, and a server there answers once that is lifted", {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const { slot, guest } = await openGuest(stack);
  stack.use(await serve(guest.slotPlace, "listener", "0.0.0.0", 22));
  for (const address of [GUEST_NETWORK.gateway_address, slot.runtime_host]) {
    await denied(guest.place, "tcp", address, 22);
  }
  await lift(guest.slotPlace, "computer-host", "input", "accept");
  await lift(guest.slotPlace, "computer-host", "output", "accept");
  for (const address of [GUEST_NETWORK.gateway_address, slot.runtime_host]) {
    assert.ok(await probe(guest.place, "tcp", address, 22), `${address} once lifted`);
  }
});

test("a host that is its own resolver answers its guests on port 53, once their way out is open", {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const playground = stack.use(await makePlayground());
  const root = stack.use(await makeRoot());
  const room = stack.use(root.start(playground.host, { dns: [host_address] }));
  await room.open();
  assert.deepEqual(await room.warnings(), []);
  const slot = await room.acquire();
  const guest = stack.use(await plugGuest(slot));
  stack.use(await serve(playground.host, "listener", "0.0.0.0", 53));
  await denied(guest.place, "tcp", host_address, 53);
  await room.openEgress(slot);
  assert.ok(await probe(guest.place, "tcp", host_address, 53));
});

test("guests do not reach each other, neither of one daemon nor of two", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { playground, root, room, guest } = await openGuest(stack);
  const neighbour = await addGuest(stack, room);
  const otherRoot = stack.use(await makeRoot());
  const otherRoom = stack.use(otherRoot.start(playground.host, { cidr: "10.201.0.0/16" }));
  await otherRoom.open();
  const stranger = await addGuest(stack, otherRoom);
  for (const other of [neighbour, stranger]) {
    stack.use(await serve(other.guest.place, "listener", "0.0.0.0", 22));
    assert.ok(await probe(playground.host, "tcp", other.slot.runtime_host, 22), "the host reaches it");
    await denied(guest.place, "tcp", other.slot.runtime_host, 22);
  }
  // From one slot to another three rules are in the way: out of the one, into the other, no stranger in its namespace.
  const tables = [root, otherRoot].map(({ tag }) => `computer-host-${tag}`);
  const reach = (other: { slot: { runtime_host: string } }) =>
    denied(guest.place, "tcp", other.slot.runtime_host, 22);
  for (const table of tables) await lift(playground.host, table, "from_slot", "accept");
  await Promise.all([neighbour, stranger].map(reach));
  for (const table of tables) await lift(playground.host, table, "to_slot", "accept");
  await Promise.all([neighbour, stranger].map(reach));
  for (const other of [neighbour, stranger]) {
    await lift(other.guest.slotPlace, "computer-host", "forward", "accept");
    assert.ok(await probe(guest.place, "tcp", other.slot.runtime_host, 22), "once all are lifted");
  }
});

test("the outside reaches no guest, even one that knows the way to its address", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { playground, root, slot, guest } = await openGuest(stack);
  stack.use(await serve(guest.place, "listener", "0.0.0.0", 22));
  assert.ok(await probe(playground.host, "tcp", slot.runtime_host, 22));
  await denied(playground.outside, "tcp", slot.runtime_host, 22);
  await lift(playground.host, `computer-host-${root.tag}`, "to_slot", "accept");
  await lift(playground.host, `computer-host-${root.tag}`, "from_slot", "accept");
  await denied(playground.outside, "tcp", slot.runtime_host, 22);
  await lift(guest.slotPlace, "computer-host", "forward", "accept");
  assert.ok(await probe(playground.outside, "tcp", slot.runtime_host, 22), "once all are lifted");
});

test("what a guest sends from another address or MAC than its own goes nowhere", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { playground, guest } = await openGuest(stack);
  const heard = async (): Promise<string> =>
    (await probe(playground.outside, "tcp", public_address, 9)) ?? "";
  await guest.place.run(["ip", "addr", "add", "203.0.113.99/32", "dev", "eth0"]);
  const spoof = (text: string) =>
    probe(guest.place, "say", public_address, 9, { from: "203.0.113.99", text });
  await probe(guest.place, "say", public_address, 9, { text: "honest" });
  await spoof("spoofed");
  assert.match(await heard(), /honest/);
  assert.doesNotMatch(await heard(), /spoofed/);
  // The kernel's own check of the way back stands behind the rule.
  for (const name of ["all", GUEST_NETWORK.tap_device]) {
    await guest.slotPlace.run(["sh", "-c", `echo 0 > /proc/sys/net/ipv4/conf/${name}/rp_filter`]);
  }
  await spoof("with-rp-filter-off");
  assert.doesNotMatch(await heard(), /with-rp-filter-off/);
  await lift(guest.slotPlace, "computer-host", "antispoof", "accept");
  await spoof("lifted");
  assert.match(await heard(), /"lifted"/);

  const mac = ["ip", "link", "set", "eth0", "address"] as const;
  const { guest: second } = await openGuest(stack);
  await second.place.run([...mac, "06:00:ac:10:00:77"]);
  await second.slotPlace.run(["ip", "neigh", "del", GUEST_NETWORK.guest_address, "dev", "tap0"]);
  await denied(second.place, "tcp", public_address, 80);
  await lift(second.slotPlace, "computer-host", "antispoof", "accept");
  assert.ok(await probe(second.place, "tcp", public_address, 80), "another MAC once the rule is lifted");
});

test("inside a slot there is no IPv6, and on the host's end neither", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { playground, slot, guest } = await openGuest(stack);
  const addresses = async (place: Place) => (await place.run(["ip", "-6", "-br", "addr"])).stdout;
  assert.equal(await addresses(guest.slotPlace), "");
  assert.doesNotMatch(await addresses(playground.host), new RegExp(slot.host_device));
  assert.match(await addresses(playground.host), /egress0/, "the look itself sees IPv6 addresses");
});
