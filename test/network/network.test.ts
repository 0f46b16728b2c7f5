import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { planSlots } from "../../src/network/plan.ts";
import { makePlayground } from "../support/playground.ts";
import { makeRoot } from "./support/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: it makes network namespaces";

test("a room that fails to open leaves neither its claim nor its table", { skip }, async () => {
  await using playground = await makePlayground();
  await using root = await makeRoot();
  // A folder in the place of a namespace's name looks like a slot that nobody holds, and cannot be removed as one.
  const { netns } = planSlots({ tag: root.tag, cidr: "10.200.0.0/16", uidBase: 1_000_000 }).slot(0);
  const folder = join("/run/netns", netns);
  mkdirSync(folder);
  try {
    writeFileSync(join(folder, "somebody's"), "");
    await using room = root.start(playground.host);
    await assert.rejects(room.open());
    assert.deepEqual(readdirSync(root.claimsDir), []);
    assert.doesNotMatch((await playground.host.run(["nft", "list", "tables"])).stdout, new RegExp(root.tag));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
