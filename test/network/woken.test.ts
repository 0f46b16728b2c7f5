import assert from "node:assert/strict";
import { test } from "node:test";
import { makePlayground, PLAYGROUND, type Place } from "../support/playground.ts";
import { plugGuest, probe } from "./support/fake-guest.ts";
import { serve } from "./support/listener.ts";
import { makeRoot } from "./support/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: it makes network namespaces";
const { public_address } = PLAYGROUND;

/** Counts from now on what leaves a slot for `public_address`; returns how to read it. */
async function countLeaving(slotPlace: Place): Promise<() => Promise<number>> {
  const chain = "type filter hook postrouting priority 300; policy accept;";
  await slotPlace.run(["nft", "-f", "-"], {
    input: `table ip watch { chain leaving { ${chain} oifname "uplink0" ip daddr ${public_address} counter; }; }\n`,
  });
  return async () => {
    const { stdout } = await slotPlace.run(["nft", "list", "table", "ip", "watch"]);
    return Number(/counter packets (\d+)/.exec(stdout)?.[1]);
  };
}

test("a connection that a woken guest remembers ends at its next packet, which goes nowhere; a new one is made", {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const playground = stack.use(await makePlayground());
  const root = stack.use(await makeRoot());
  const room = stack.use(root.start(playground.host));
  await room.open();
  const [source, other] = [await room.acquire(), await room.acquire()];
  const guest = stack.use(await plugGuest(source));
  await room.openEgress(source);
  const echo = stack.use(await serve(guest.place, "echo-client", public_address, 80));
  assert.equal(await echo.say("one"), "one");

  await room.openEgress(other);
  const slotPlace = await guest.wakeIn(other);
  const leaving = await countLeaving(slotPlace);
  assert.equal(await echo.say("two"), "ECONNRESET");
  assert.equal(await leaving(), 0);

  assert.ok(await probe(guest.place, "tcp", public_address, 80));
  assert.ok((await leaving()) > 0, "the counter sees what leaves");
});

test("a connection of a guest goes on when its daemon starts again", { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const playground = stack.use(await makePlayground());
  const root = stack.use(await makeRoot());
  const first = stack.use(root.start(playground.host));
  await first.open();
  const slot = await first.acquire();
  const guest = stack.use(await plugGuest(slot));
  await first.openEgress(slot);
  const echo = stack.use(await serve(guest.place, "echo-client", public_address, 80));
  assert.equal(await echo.say("one"), "one");
  await first.kill();

  const second = stack.use(root.start(playground.host));
  await second.open([slot.index]);
  await second.openEgress(slot);
  assert.equal(await echo.say("two"), "two");
});
