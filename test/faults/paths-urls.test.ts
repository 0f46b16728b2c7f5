import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inStubWorld, stateDigest } from "../support/stub-world.ts";
import type { TinyArtifact } from "../support/tiny-machine.ts";
import { Canary } from "./paths-canary.ts";
import { assertNotKept, Watched } from "./paths-watched.ts";
import { FULL } from "./seed.ts";

const FLIP_ROUNDS = FULL ? 300 : 10;

/** File URLs that leave the folder which the setting allows, or name what is no file. */
function escapes({ dir }: TinyArtifact, { path }: Canary): readonly string[] {
  const secret = join(path, "secret");
  symlinkSync(secret, join(dir, "link"));
  symlinkSync(path, join(dir, "out"));
  symlinkSync("link", join(dir, "chain"));
  symlinkSync("loop", join(dir, "loop"));
  mkdirSync(join(dir, "folder"));
  execFileSync("mkfifo", [join(dir, "pipe")]);
  execFileSync("mknod", [join(dir, "device"), "c", "1", "5"]);
  const up = "..%2f".repeat(10);
  return [
    `file://${secret}`,
    `file://${dir}/../${secret}`,
    `file://${dir}/link`,
    `file://${dir}/chain`,
    `file://${dir}/out/secret`,
    `file://${dir}/out/inner/../secret`,
    `file://${dir}/loop`,
    `file://${dir}/folder`,
    `file://${dir}/pipe`,
    `file://${dir}/device`,
    `file://${dir}/${up}${secret.slice(1)}`,
    `file://${dir}/%2e%2e/%2e%2e/%2e%2e${secret}`,
    `file://${dir}/kernel.elf%00.txt`,
    `file://${dir}`,
    `file://${dir}x/secret`,
    `file://elsewhere${dir}/kernel.elf`,
    "file:///proc/self/environ",
    "file:///proc/self/fd/0",
    "file:///dev/zero",
    "file:relative",
  ];
}

test("file URLs do not lead out of the folders that are allowed", async () => {
  using canary = new Canary();
  await inStubWorld(async (world, artifact) => {
    const watched = new Watched(world, canary);
    const { body } = artifact;
    for (const url of escapes(artifact, canary)) {
      for (const field of ["kernel_image_url", "rootfs_url"]) {
        const before = stateDigest(world);
        const create = { machine_id: "a", ...body, artifact: { ...body.artifact, [field]: url } };
        await watched.ask("post", "/machines", create, ["artifact_refused", "artifact_unavailable"]);
        assert.equal(stateDigest(world), before, url);
      }
    }
    canary.assertUntouched();
    // Exchanged all the time between what is allowed and what is not: it is either the one or refused.
    const [good, flip] = [join(artifact.dir, "good"), join(artifact.dir, "flip")];
    linkSync(join(artifact.dir, "kernel.elf"), good);
    const flipping = setInterval(() => {
      for (const target of [join(canary.path, "secret"), good]) {
        symlinkSync(target, `${flip}.new`);
        renameSync(`${flip}.new`, flip);
      }
    }, 1);
    try {
      for (let round = 0; round < FLIP_ROUNDS; round += 1) {
        const create = {
          machine_id: "a",
          ...body,
          artifact: { ...body.artifact, kernel_image_url: `file://${flip}` },
        };
        const { status } = await watched.ask("post", "/machines", create, [
          201,
          "artifact_refused",
          "artifact_unavailable",
        ]);
        if (status === 201) await watched.ask("delete", "/machines/a");
      }
    } finally {
      clearInterval(flipping);
    }
    canary.assertUntouched();
    await assertNotKept(world, canary);
  });
  canary.assertReadsShow();
});
