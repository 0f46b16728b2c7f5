import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";
import { run } from "../../../src/system/run.ts";
import { rootTest } from "../../support/root-test.ts";
import { type Place, fakeKernel, fakeRootfs, openStorage, sha256 } from "./support.ts";

const urlOf = (...parts: [string, ...string[]]): string => pathToFileURL(join(...parts)).href;

async function setUp(
  t: TestContext,
): Promise<Place & { outside: string; rootfs: Buffer; kernel_image_url: string }> {
  const place = await openStorage(t);
  const outside = join(place.imageDir, "..", "outside");
  await mkdir(outside);
  const rootfs = fakeRootfs();
  await writeFile(join(place.imageDir, "rootfs"), rootfs);
  await writeFile(join(outside, "rootfs"), rootfs);
  await writeFile(join(place.imageDir, "kernel"), fakeKernel());
  return { ...place, outside, rootfs, kernel_image_url: urlOf(place.imageDir, "kernel") };
}

rootTest("a file in an allowed folder is taken, and taken anew when it changed", async (t) => {
  const { storage, imageDir, rootfs, kernel_image_url } = await setUp(t);
  const artifact = { kernel_image_url, rootfs_url: urlOf(imageDir, "rootfs") };
  assert.equal((await storage.fetchImage(artifact)).rootfs_sha256, sha256(rootfs));
  const changed = fakeRootfs();
  await writeFile(join(imageDir, "rootfs"), changed);
  assert.equal((await storage.fetchImage(artifact)).rootfs_sha256, sha256(changed));
});

rootTest(
  "a file elsewhere is refused, however the way there is written, even with a digest that the store has",
  async (t) => {
    const { storage, imageDir, outside, rootfs, kernel_image_url } = await setUp(t);
    await storage.fetchImage({ kernel_image_url, rootfs_url: urlOf(imageDir, "rootfs") });
    await symlink(join(outside, "rootfs"), join(imageDir, "link"));
    await symlink(outside, join(imageDir, "folder"));
    const folder = pathToFileURL(imageDir).href;
    for (const rootfs_url of [
      urlOf(outside, "rootfs"),
      `${folder}/../outside/rootfs`,
      `${folder}/%2e%2e/outside/rootfs`,
      `${folder}-beside/rootfs`,
      `${folder}/link`,
      `${folder}/folder/rootfs`,
      folder,
    ]) {
      await assert.rejects(
        storage.fetchImage({ kernel_image_url, rootfs_url }),
        { code: "artifact_refused" },
        rootfs_url,
      );
    }
    const named = { kernel_image_url, rootfs_url: urlOf(outside, "rootfs"), rootfs_sha256: sha256(rootfs) };
    await assert.rejects(storage.fetchImage(named), { code: "artifact_refused" });
  },
);

test("a pipe or a folder is refused without waiting, a missing file is artifact_unavailable", {
  timeout: 10_000,
}, async (t) => {
  const { storage, imageDir, kernel_image_url } = await setUp(t);
  await run(["mkfifo", join(imageDir, "pipe")]);
  await mkdir(join(imageDir, "sub"));
  for (const name of ["pipe", "sub"]) {
    await assert.rejects(storage.fetchImage({ kernel_image_url, rootfs_url: urlOf(imageDir, name) }), {
      code: "artifact_refused",
      message: /not a regular file/,
    });
  }
  await assert.rejects(storage.fetchImage({ kernel_image_url, rootfs_url: urlOf(imageDir, "none") }), {
    code: "artifact_unavailable",
  });
});
