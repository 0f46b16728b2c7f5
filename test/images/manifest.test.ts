import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { describe, test } from "node:test";
import { run } from "../../src/system/run.ts";
import { IMAGE_DIR, readManifest } from "./image.ts";

const BUILD = join(import.meta.dirname, "../../guest/build-images.sh");

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

async function firstBytes(path: string, count: number): Promise<Buffer> {
  await using file = await open(path);
  return (await file.read(Buffer.alloc(count), 0, count, 0)).buffer;
}

describe("the image store", () => {
  for (const name of ["debian-slim", "debian"]) {
    test(`${name}: the manifest names its files with size and digest`, async () => {
      const { kernel, kernel_elf, modules, rootfs, ...manifest } = await readManifest(name);
      assert.equal(manifest.name, name);
      for (const { file, sha256: digest, size_bytes } of [kernel, kernel_elf, modules, rootfs]) {
        const path = join(IMAGE_DIR, name, file);
        assert.equal((await stat(path)).size, size_bytes, path);
        assert.equal(await sha256(path), digest, path);
      }
      assert.equal(
        (await firstBytes(join(IMAGE_DIR, name, kernel_elf.file), 4)).toString("latin1"),
        "\x7fELF",
      );
      assert.equal((await firstBytes(join(IMAGE_DIR, name, modules.file), 6)).toString("latin1"), "070701");
      assert.equal(modules.size_bytes % 512, 0);
    });
  }

  test("a build with nothing to do changes nothing and takes less than two seconds", async () => {
    const before = await stat(join(IMAGE_DIR, "debian-slim/manifest.json"));
    const { durationMs, stderr } = await run([BUILD, "--dir", IMAGE_DIR, "debian-slim", "debian"]);
    assert.match(stderr, /are up to date/);
    assert.ok(durationMs < 2000, `it took ${durationMs} ms`);
    assert.equal((await stat(join(IMAGE_DIR, "debian-slim/manifest.json"))).ino, before.ino);
  });

  test("an image that there is no recipe for is refused by name", async () => {
    await assert.rejects(
      run([BUILD, "--dir", IMAGE_DIR, "nonsense"]),
      /there is no image nonsense; there are: debian-slim debian/,
    );
  });
});
