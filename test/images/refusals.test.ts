import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { makeDisk, type GuestOptions, TestGuest } from "./guest.ts";
import { makeIdentity, type TestIdentity } from "./identity.ts";
import { TestSlot } from "./slot.ts";

const IMAGE = "debian-slim";

describe("a guest that cannot come up says why on its console and resets", { concurrency: true }, () => {
  const stack = new AsyncDisposableStack();
  let folder: string;
  let identity: TestIdentity;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "ch-images-"));
    stack.defer(() => rm(folder, { recursive: true }));
    identity = await makeIdentity(folder, "refused");
  });

  after(() => stack.disposeAsync());

  /** Boots until the VMM ends; returns what the initrd said. */
  async function refusal(options: Partial<GuestOptions>): Promise<string> {
    await using slot = await TestSlot.make();
    const disk = await makeDisk(IMAGE, join(folder, `${slot.name}.disk`));
    await using guest = await TestGuest.boot({ slot, image: IMAGE, disk, folder, identity, ...options });
    await guest.waitEnd(60_000);
    const console = guest.console();
    assert.doesNotMatch(console, /Kernel panic/);
    return /^computer-host: error: .*$/m.exec(console)?.[0] ?? console;
  }

  test("a seed that does not match its digest", async () => {
    const expected = "0".repeat(64);
    assert.equal(
      await refusal({ seedSha256: expected }),
      `computer-host: error: the seed does not match its digest (expected ${expected}, found ${identity.seedSha256})`,
    );
  });

  test("no root device, because the kernel's modules are missing", async () => {
    assert.equal(
      await refusal({ modules: false }),
      "computer-host: error: the root device /dev/vda did not appear within 10 seconds (devices: none)",
    );
  });
});
