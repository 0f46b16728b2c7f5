import assert from "node:assert/strict";
import {
  closeSync,
  copyFileSync,
  fstatSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { assertCountsOn, startCounter } from "../support/counter.ts";
import { inWorld } from "../support/world.ts";

/** Changes one byte of a file in its place, the one in the middle of what it holds. */
function flipByte(path: string): void {
  const file = openSync(path, "r+");
  const at = Math.floor(fstatSync(file).size / 2);
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ 0x40;
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
}

const FILES = ["disk.img", "memory.img", "vmstate.bin", "manifest.json"] as const;
/** What can befall a file, given its path and that of the same file of another snapshot. */
const DAMAGES: Readonly<Record<string, (path: string, other: string) => void>> = {
  "cut short": (path) => truncateSync(path, 1000),
  "with a byte changed": flipByte,
  "exchanged for another's": (path, other) => {
    rmSync(path);
    copyFileSync(other, path);
  },
  gone: (path) => rmSync(path),
  empty: (path) => writeFileSync(path, ""),
};

test("a snapshot with a damaged file is refused with the file's name, and touches nothing", async (t) => {
  await inWorld(async (world) => {
    const source = await world.create("source", { memory_mib: 128 });
    await startCounter(world, source);
    for (const snapshot_id of ["good", "other"]) {
      const taken = await world.post("/machines/source/snapshots", { snapshot_id, memory: true });
      assert.equal(taken.status, 201, JSON.stringify(taken.body));
      await world.ssh(source, "head -c 100000 /dev/urandom > /root/noise; sync");
    }
    const folder = join(world.rootDir, "snapshots/good");
    const other = join(world.rootDir, "snapshots/other");
    const restore = (machine_id: string, more: object = {}) =>
      world.post("/snapshots/good/restore", {
        machine_id,
        guest_config: { authorized_keys: [world.key.publicLine] },
        ...more,
      });
    for (const file of FILES) {
      const path = join(folder, file);
      const kept = join(world.rootDir, "..", `kept-${file}`);
      copyFileSync(path, kept);
      for (const [damage, inflict] of Object.entries(DAMAGES)) {
        await t.test(`${file} ${damage}`, async () => {
          inflict(path, join(other, file));
          const refused = await restore("twin");
          assert.deepEqual(
            [refused.status, refused.body.code],
            [422, "snapshot_invalid"],
            JSON.stringify(refused.body),
          );
          assert.match(refused.body.error, /good/, "the snapshot is named");
          assert.equal((await world.get("/machines")).body.machines.length, 1);
          if (file === "disk.img" || file === "manifest.json") {
            const cold = await restore("twin", { memory: false });
            assert.deepEqual(
              [cold.status, cold.body.code],
              [422, "snapshot_invalid"],
              JSON.stringify(cold.body),
            );
          }
          rmSync(path, { force: true });
          copyFileSync(kept, path);
        });
      }
      rmSync(kept);
    }
    await t.test("mended, it wakes", async () => {
      const answer = await restore("twin");
      assert.equal(answer.status, 201, JSON.stringify(answer.body));
      await assertCountsOn(world, answer.body.machine);
      await assertCountsOn(world, source);
      await world.assertMatchesState();
    });
  });
});
