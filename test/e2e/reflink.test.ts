import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../../src/system/run.ts";
import { makeSmallDisk } from "../support/small-disk.ts";
import { inWorld } from "../support/world.ts";

/** Bytes in use on the filesystem of `folder`. */
async function used(folder: string): Promise<number> {
  await run(["sync", "-f", folder]);
  return Number((await run(["df", "--output=used", "-B1", folder])).stdout.split("\n")[1]);
}

test("on XFS disks are cloned by reference: a machine and a snapshot cost what they change, not their size", async () => {
  await using disk = await makeSmallDisk(3 * 1024 ** 3, ["mkfs.xfs", "-q", "-m", "reflink=1"]);
  const { mount, rootDir } = disk;
  await inWorld(
    async (world) => {
      const first = await world.create("one");
      assert.equal(first.disk_clone, "reflink");
      const before = await used(mount);
      const snapshot = await world.post("/machines/one/snapshots", { snapshot_id: "s" });
      assert.deepEqual([snapshot.status, snapshot.body.snapshot.disk_clone], [201, "reflink"]);
      const restored = await world.post("/snapshots/s/restore", { machine_id: "two", memory_mib: 192 });
      assert.equal(restored.status, 201, JSON.stringify(restored.body));
      assert.equal(restored.body.machine.disk_clone, "reflink");
      const cost = (await used(mount)) - before;
      assert.ok(cost < 64 * 1024 ** 2, `a snapshot and a machine cost ${Math.round(cost / 1024 ** 2)} MiB`);
      assert.equal((await world.get("/health")).body.disk_clone, "reflink");
    },
    { rootDir, env: { FIRECRACKER_HOST_DISK_CLONE_MODE: "reflink" } },
  );
});

test("on a filesystem that cannot clone by reference, the mode reflink refuses to start", async () => {
  await using disk = await makeSmallDisk(256 * 1024 ** 2, ["mkfs.ext4", "-q"]);
  await assert.rejects(
    run(["./computer-host"], {
      env: { FIRECRACKER_HOST_ROOT_DIR: disk.rootDir, FIRECRACKER_HOST_DISK_CLONE_MODE: "reflink" },
    }),
    /FIRECRACKER_HOST_DISK_CLONE_MODE/,
  );
});
