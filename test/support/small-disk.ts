import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../src/system/run.ts";

/** A filesystem of its own in a file, mounted, with a folder in it for a daemon's root. */
export interface SmallDisk extends AsyncDisposable {
  readonly mount: string;
  readonly rootDir: string;
  /** Writes a file that leaves `freeBytes` on the filesystem; `release` removes it. */
  fillUp(freeBytes: number): Promise<void>;
  release(): void;
}

/** Makes one with `mkfs` and its options. Goes with the scope. Needs root and a loop device. */
export async function makeSmallDisk(bytes: number, mkfs: readonly [string, ...string[]]): Promise<SmallDisk> {
  await using undo = new AsyncDisposableStack();
  const folder = mkdtempSync("/var/tmp/ch-disk-");
  undo.defer(() => rmSync(folder, { recursive: true, force: true }));
  const image = join(folder, "image");
  writeFileSync(image, "");
  truncateSync(image, bytes);
  await run([...mkfs, image]);
  const mount = join(folder, "mount");
  mkdirSync(mount);
  await run(["mount", "-o", "loop", image, mount]);
  undo.defer(async () => {
    await run(["umount", mount]);
  });
  const rootDir = join(mount, "root");
  mkdirSync(rootDir);
  const filler = join(mount, "filler");
  const made = undo.move();
  return {
    mount,
    rootDir,
    fillUp: async (freeBytes) => {
      const { stdout } = await run(["df", "--output=avail", "-B1", mount]);
      const bytesToTake = Number(stdout.split("\n")[1]) - freeBytes;
      if (bytesToTake > 0) await run(["fallocate", "-l", String(bytesToTake), filler]);
    },
    release: () => rmSync(filler, { force: true }),
    [Symbol.asyncDispose]: () => made.disposeAsync(),
  };
}
