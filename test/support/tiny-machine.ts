import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { run } from "../../src/system/run.ts";
import { tinyGuest } from "../conformance/support/tiny-guest.ts";
import type { World } from "./world.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 16 * MIB;
const MEMORY_MIB = 64;
/** The tiny guest listens to no key press, so that each stop waits as long as it may. */
const STOP_TIMEOUT = "1s";

/** The tiny guest and a small root disk: files in a folder that goes with the scope, and what a daemon and a create need for them. */
export interface TinyArtifact extends Disposable {
  readonly dir: string;
  /** Settings of a daemon that takes its files. */
  readonly env: Readonly<Record<string, string>>;
  /** The body of a create. */
  readonly body: {
    readonly memory_mib: number;
    readonly ready: "started";
    readonly artifact: Record<string, string>;
  };
}

export async function makeTinyArtifact(memory_mib = MEMORY_MIB): Promise<TinyArtifact> {
  const dir = mkdtempSync("/var/tmp/ch-tiny-");
  const remove = (): void => rmSync(dir, { recursive: true, force: true });
  try {
    const [kernel, rootfs] = [join(dir, "kernel.elf"), join(dir, "root.ext4")];
    await copyFile(tinyGuest(), kernel);
    await run(["truncate", "-s", String(DISK_BYTES), rootfs]);
    await run(["mkfs.ext4", "-q", "-F", rootfs]);
    const artifact = { kernel_image_url: `file://${kernel}`, rootfs_url: `file://${rootfs}` };
    return {
      dir,
      env: { FIRECRACKER_HOST_FILE_URL_DIRS: dir, FIRECRACKER_HOST_STOP_TIMEOUT: STOP_TIMEOUT },
      body: { memory_mib, ready: "started", artifact },
      [Symbol.dispose]: remove,
    };
  } catch (error) {
    remove();
    throw error;
  }
}

/** The VMM of a machine that runs. */
export function vmmOf(machine: Machine): NonNullable<Machine["vmm"]> {
  assert.ok(machine.vmm !== undefined, `${machine.id} has no VMM`);
  return machine.vmm;
}

/** The machine as the daemon tells it. */
export async function machineOf(world: World, id: string): Promise<Machine> {
  const { status, body } = await world.get(`/machines/${id}`);
  assert.equal(status, 200, JSON.stringify(body));
  return body.machine as Machine;
}

/** The guest counts on its console, in the file that the daemon keeps; returns once it counted on. */
export async function assertCounting(world: World, id: string): Promise<void> {
  const ticks = async (): Promise<number> => {
    const { stdout } = await run(
      ["grep", "-c", "^tick ", join(world.rootDir, "machines", id, "console.log")],
      {
        okCodes: [0, 1],
      },
    );
    return Number(stdout);
  };
  const before = await ticks();
  for (let attempt = 0; attempt < 100; attempt += 1) {
    if ((await ticks()) > before) return;
    await sleep(100);
  }
  throw new Error(`the guest of ${id} does not count on from ${before}`);
}

/** Waits until the machine has failed, and returns it. */
export async function untilFailed(world: World, id: string): Promise<Machine> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const machine = await machineOf(world, id);
    if (machine.phase === "failed") return machine;
    await sleep(100);
  }
  throw new Error(`machine ${id} did not fail`);
}
