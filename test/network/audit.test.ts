import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { HostItem } from "../../src/model/inventory.ts";
import { tableName } from "../../src/network/host-table.ts";
import { planSlots } from "../../src/network/plan.ts";
import type { Slot } from "../../src/network/types.ts";
import { makePlayground, placeIn } from "../support/playground.ts";
import { makeRoot, type Room } from "./support/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: it makes network namespaces";

/** A process that lives in a slot and holds its tap, as a VMM does. */
const HOLD_TAP = `use Fcntl; sysopen(my $tun, "/dev/net/tun", O_RDWR) or die;
my $request = pack("Z16 s x22", "tap0", 0x1002); ioctl($tun, 0x400454ca, $request) or die "tap: $!"; $| = 1; print "up"; sleep 600;`;

async function liveIn(slot: Slot): Promise<ChildProcess & { pid: number }> {
  const [file, ...args] = placeIn(slot.netns).command(["perl", "-e", HOLD_TAP]);
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data", { signal: AbortSignal.timeout(10_000) });
  assert.ok(child.pid !== undefined);
  return child as ChildProcess & { pid: number };
}

const wrong = (items: readonly HostItem[]): HostItem[] => items.filter(({ status }) => status !== "ok");
const named = (items: readonly HostItem[]): string[] =>
  wrong(items)
    .map(({ status, resource, name }) => `${status} ${resource} ${name}`)
    .sort();

test("what somebody changes of a slot or the table is named, and mended around the process that lives there", {
  skip,
}, async (t) => {
  await using playground = await makePlayground();
  const { host } = playground;
  await using root = await makeRoot();
  await using room = root.start(host);
  await room.open();
  const slot = await room.acquire();
  await room.openEgress(slot);
  const vmm = await liveIn(slot);
  await using undo = new AsyncDisposableStack();
  undo.defer(async () => {
    if (vmm.kill("SIGKILL")) await once(vmm, "exit");
  });
  const { netns, host_device, index } = slot;
  const held = [{ index, pid: vmm.pid, open: true }];
  const inside = placeIn(netns);
  const table = `table inet ${tableName(planSlots({ tag: root.tag, cidr: "10.200.0.0/16", uidBase: 100_000 }))}`;
  assert.deepEqual(named(await room.inventory(held)), []);

  await meddle(t, room, held, "the ruleset is flushed", () => host.run(["nft", "flush", "ruleset"]), [
    `missing nftables ${table}`,
  ]);
  await meddle(
    t,
    room,
    held,
    "a rule is added to the table",
    () => host.run(["nft", ...`add rule inet ${table.slice(11)} from_slot accept`.split(" ")]),
    [`altered nftables ${table}`],
  );
  const elementName = `element ${host_device} of the set opened`;
  const element = `{ "${host_device}" . ${slot.runtime_host} }`;
  await meddle(
    t,
    room,
    held,
    "the way out of a slot is closed",
    () => host.run(["nft", `delete element inet ${table.slice(11)} opened ${element}`]),
    [`missing nftables ${elementName}`],
  );
  const other = `ch${root.tag}v77`;
  await meddle(
    t,
    room,
    held,
    "the way out of a slot that nobody has is opened",
    () => host.run(["nft", `add element inet ${table.slice(11)} opened { "${other}" . 10.200.0.157 }`]),
    [`leaked nftables element ${other} of the set opened`],
  );
  await meddle(
    t,
    room,
    held,
    "the host's end is deleted",
    () => host.run(["ip", "link", "del", host_device]),
    [`missing link ${host_device}`, `missing link uplink0 in ${netns}`, `missing route default in ${netns}`],
  );
  await meddle(
    t,
    room,
    held,
    "the host's end is set down",
    () => host.run(["ip", "link", "set", host_device, "down"]),
    [`altered link ${host_device}`],
  );
  await meddle(
    t,
    room,
    held,
    "the guest's end is set down",
    () => inside.run(["ip", "link", "set", "uplink0", "down"]),
    [`altered link uplink0 in ${netns}`, `missing route default in ${netns}`],
  );
  await meddle(t, room, held, "the namespace loses its name", () => host.run(["ip", "netns", "del", netns]), [
    `missing namespace ${netns}`,
  ]);
  await meddle(
    t,
    room,
    held,
    "another namespace has its name",
    () => host.run(["sh", "-c", `ip netns del ${netns} && ip netns add ${netns}`]),
    [`altered namespace ${netns}`],
  );
  await meddle(t, room, held, "the rules inside are flushed", () => inside.run(["nft", "flush", "ruleset"]), [
    `missing nftables table inet computer-host in ${netns}`,
  ]);
  await meddle(
    t,
    room,
    held,
    "a rule inside is added",
    () => inside.run(["nft", "add rule inet computer-host antispoof accept"]),
    [`altered nftables table inet computer-host in ${netns}`],
  );
  await meddle(
    t,
    room,
    held,
    "sysctls are edited",
    async () => {
      const set = (name: string, value: string): string => `echo ${value} > /proc/sys/net/ipv4/${name}`;
      await host.run([
        "sh",
        "-c",
        `${set(`conf/${host_device}/forwarding`, "0")}; ${set("conf/egress0/forwarding", "0")}`,
      ]);
      await inside.run(["sh", "-c", set("conf/uplink0/arp_ignore", "0")]);
    },
    [
      `altered sysctl net.ipv4.conf.egress0.forwarding`,
      `altered sysctl net.ipv4.conf.${host_device}.forwarding`,
      `altered sysctl net.ipv4.conf.uplink0.arp_ignore in ${netns}`,
    ],
  );
  await meddle(
    t,
    room,
    held,
    "the pool's route is deleted",
    () => host.run(["ip", "route", "del", "unreachable", "10.200.0.0/16"]),
    ["missing route unreachable 10.200.0.0/16"],
  );
  const claim = join(root.claimsDir, `${root.tag}.json`);
  await meddle(t, room, held, "the claim is emptied", async () => writeFileSync(claim, ""), [
    `missing claim ${claim}`,
  ]);

  await t.test("a tap under a VMM is made again, and the VMM told to be cut off from it", async () => {
    await inside.run(["ip", "link", "del", "tap0"]);
    assert.deepEqual(named(await room.inventory(held)), [`missing link tap0 in ${netns}`]);
    await room.mend(wrong(await room.inventory(held)), held);
    const left = await room.inventory(held);
    assert.deepEqual(named(left), [`altered link tap0 of the VMM in ${netns}`]);
    const [mended] = await room.mend(wrong(left), held);
    assert.equal(mended?.ok, false);
    assert.match(mended?.reason ?? "", /stop the machine and start it again/);
  });
});

test("slots that nobody has are leaks, and removed; those that are new or ready are not", {
  skip,
}, async () => {
  await using playground = await makePlayground();
  const { host } = playground;
  await using root = await makeRoot();
  await using room = root.start(host);
  await room.open();
  const [kept, lost] = [await room.acquire(), await room.acquire()];
  const held = [{ index: kept.index }];
  const planted = `ch-${root.tag}-99`;
  await host.run(["ip", "netns", "add", planted]);
  await host.run(["ip", "link", "add", `ch${root.tag}v98`, "type", "veth", "peer", "name", "planted"]);
  const leaks = [`leaked namespace ch-${root.tag}-98`, `leaked namespace ${planted}`];
  assert.deepEqual(named(await room.inventory(held)), leaks, "a slot may just have been taken");
  const later = Date.now() + 1;
  const all = await room.inventory(held, later);
  assert.deepEqual(named(all), [`leaked namespace ${lost.netns}`, ...leaks].sort());
  const mended = await room.mend(wrong(all), held, later);
  assert.ok(
    mended.every(({ ok }) => ok),
    JSON.stringify(mended),
  );
  assert.deepEqual(named(await room.inventory(held, later)), []);
  for (const name of [planted, lost.netns]) assert.equal(existsSync(`/run/netns/${name}`), false);
  assert.ok(existsSync(kept.netns_path));
});

test("a ready-made slot that was broken is replaced before a machine gets it", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using room = root.start(playground.host, { poolSize: 1 });
  await room.open();
  await room.release(await room.acquire());
  const ready = await waiting(room);
  await placeIn(ready).run(["nft", "flush", "ruleset"]);
  const found = wrong(await room.inventory([]));
  assert.deepEqual(named(found), [`missing nftables table inet computer-host in ${ready}`]);
  const mended = await room.mend(found, []);
  assert.ok(
    mended.every(({ ok }) => ok),
    JSON.stringify(mended),
  );
  assert.notEqual(await waiting(room), ready);
  assert.deepEqual(named(await room.inventory([])), []);
});

test("a start finds the namespace that lost its name by the process that lives in it", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  await using before = root.start(playground.host);
  await before.open();
  const slot = await before.acquire();
  const vmm = await liveIn(slot);
  try {
    await before.kill();
    await playground.host.run(["ip", "netns", "del", slot.netns]);
    await using after = root.start(playground.host);
    await after.open([slot.index], [[slot.index, vmm.pid]]);
    const held = [{ index: slot.index, pid: vmm.pid }];
    assert.deepEqual(named(await after.inventory(held)), []);
  } finally {
    vmm.kill("SIGKILL");
    await once(vmm, "exit");
  }
});

/** The name of the ready slot, once there is one. */
async function waiting(room: Room): Promise<string> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const items = await room.inventory([]);
    const link = items.find(({ holder, resource }) => holder.of === "pool" && resource === "link");
    if (link !== undefined) return link.name.replace(/^ch(.*)v(\d+)$/, "ch-$1-$2");
  }
  throw new Error("no slot became ready");
}

/** Somebody does something; the inventory names just that, and mending leaves nothing to name. */
async function meddle(
  t: TestContext,
  room: Room,
  held: readonly { index: number; pid: number; open: boolean }[],
  what: string,
  deed: () => Promise<unknown>,
  expected: readonly string[],
): Promise<void> {
  await t.test(what, async () => {
    await deed();
    const found = wrong(await room.inventory(held));
    assert.deepEqual(named(found), expected.toSorted());
    const mended = await room.mend(found, held);
    assert.ok(
      mended.every(({ ok }) => ok),
      JSON.stringify(mended),
    );
    assert.deepEqual(named(await room.inventory(held)), []);
    assert.ok(held.every(({ pid }) => existsSync(`/proc/${pid}`)));
  });
}
