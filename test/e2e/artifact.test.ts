import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { inWorld } from "../support/world.ts";

const IMAGE = join(process.env["IMAGE_DIR"] ?? "/var/cache/computer-host/images", "debian-slim");

test("a machine from file URLs boots like one from the image, and its artifact makes another one", async () => {
  await inWorld(
    async (world) => {
      const artifact = {
        kernel_image_url: `file://${IMAGE}/vmlinuz`,
        rootfs_url: `file://${IMAGE}/rootfs.ext4`,
      };
      const machine = await world.create("one", { artifact });
      assert.equal(await world.print(machine, "hostname"), "one");
      assert.match(machine.artifact.kernel_sha256, /^[0-9a-f]{64}$/);
      assert.equal((await world.delete("/machines/one")).status, 204);
      const again = await world.create("two", { artifact: machine.artifact, ready: "started" });
      assert.deepEqual(again.artifact, machine.artifact);

      const wrong = { ...artifact, kernel_sha256: "0".repeat(64) };
      const refused = await world.post("/machines", { machine_id: "bad", artifact: wrong });
      assert.deepEqual(
        [refused.status, refused.body.code],
        [422, "image_invalid"],
        JSON.stringify(refused.body),
      );
      const outside = { ...artifact, kernel_image_url: "file:///etc/passwd" };
      const denied = await world.post("/machines", { machine_id: "bad", artifact: outside });
      assert.deepEqual([denied.status, denied.body.code], [422, "artifact_refused"]);
      await world.assertMatchesState();
    },
    { env: { FIRECRACKER_HOST_FILE_URL_DIRS: IMAGE } },
  );
});
