import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { describe, test } from "node:test";
import { expectDone, expectFault } from "./support/api.ts";
import { create, filesIn, load, pause, restore, resume, takeSnapshot } from "./support/snapshot.ts";
import { Vmm } from "./support/vmm.ts";
import { WorkDir } from "./support/workdir.ts";

const MIB = 1024 * 1024;
const PAGE = 4096;
const MEMORY = 128 * MIB;
/** See test/fixtures/tiny-guest/guest.c. */
const DIRTY = { start: 16 * MIB, pages: 4096, tick: 32 * MIB } as const;

/** The tick that stands in a memory file, when all the rest of the file is as the guest has it at that tick. */
function expectMemory(path: string): number {
  assert.equal(statSync(path).size, MEMORY);
  const bytes = Buffer.alloc(DIRTY.pages * PAGE + PAGE);
  const fd = openSync(path, "r");
  try {
    assert.equal(readSync(fd, bytes, 0, bytes.length, DIRTY.start), bytes.length);
  } finally {
    closeSync(fd);
  }
  const tick = bytes.readUInt32LE(DIRTY.tick - DIRTY.start);
  for (let page = 0; page < DIRTY.pages; page++) {
    // The page of this very tick may be cleared already, or still be the one before.
    const words = page <= tick ? [0] : page === tick + 1 ? [0, ~page >>> 0] : [~page >>> 0];
    assert.ok(words.includes(bytes.readUInt32LE(page * PAGE)), `page ${page} at tick ${tick}`);
  }
  return tick;
}

/** A guest that dirties its memory and has come to its third tick. */
async function bootDirty(dir: WorkDir, track_dirty_pages: boolean): Promise<Vmm> {
  const vmm = await Vmm.start({ dir, socketName: "source" });
  try {
    const config = { vcpu_count: 1, mem_size_mib: MEMORY / MIB, track_dirty_pages };
    expectDone(await vmm.call("PUT", "/machine-config", config));
    await vmm.configureTinyGuest("dirty");
    expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
    await vmm.console.waitForTick(3);
  } catch (error) {
    await vmm[Symbol.asyncDispose]();
    throw error;
  }
  return vmm;
}

async function goOn(vmm: Vmm, ticks: number): Promise<void> {
  const tick = vmm.console.lastTick();
  await resume(vmm);
  await vmm.console.waitForTick(tick + ticks);
  await pause(vmm);
}

test("a full memory file is the guest's memory, byte by byte from address 0", async () => {
  using dir = new WorkDir();
  const files = filesIn(dir);
  await using vmm = await bootDirty(dir, false);
  await pause(vmm);
  expectDone(await vmm.call("PUT", "/snapshot/create", create(files)));
  const printed = vmm.console.lastTick();
  const tick = expectMemory(files.memory);
  assert.ok(tick === printed || tick === printed + 1, `memory at ${tick}, console at ${printed}`);
});

for (const tracked of [true, false]) {
  const how = tracked ? "with dirty pages tracked" : "without dirty pages tracked";
  test(`a diff over the base makes the file the new memory, ${how}`, async () => {
    using dir = new WorkDir();
    const base = filesIn(dir, "base");
    const merged = filesIn(dir, "merged");
    await using vmm = await bootDirty(dir, tracked);
    await pause(vmm);
    expectDone(await vmm.call("PUT", "/snapshot/create", create(base)));
    const first = expectMemory(base.memory);
    await goOn(vmm, 4);
    copyFileSync(base.memory, merged.memory);
    expectDone(await vmm.call("PUT", "/snapshot/create", create(merged, "Diff")));
    assert.ok(expectMemory(merged.memory) >= first + 4);
    assert.equal(expectMemory(base.memory), first);
    // And once more, on top of what is merged already.
    await goOn(vmm, 2);
    expectDone(await vmm.call("PUT", "/snapshot/create", create(merged, "Diff")));
    const last = expectMemory(merged.memory);
    assert.ok(last >= first + 6);
    await using copy = await restore(dir, "copy", load(merged));
    await copy.console.waitForTick(last + 3);
  });
}

test("a guest that was loaded with its pages tracked is saved as a diff over what it was loaded from", async () => {
  using dir = new WorkDir();
  const { tick, ...base } = await takeSnapshot(dir, "dirty");
  await using vmm = await restore(dir, "copy", load(base, { track_dirty_pages: true }));
  await vmm.console.waitForTick(tick + 3);
  await pause(vmm);
  const merged = filesIn(dir, "merged");
  copyFileSync(base.memory, merged.memory);
  expectDone(await vmm.call("PUT", "/snapshot/create", create(merged, "Diff")));
  assert.ok(expectMemory(merged.memory) >= tick + 3);
  assert.ok(expectMemory(base.memory) <= tick + 1);
});

test("a file of another length is no base: a first diff replaces it and holds all that the guest touched", async () => {
  using dir = new WorkDir();
  const files = filesIn(dir);
  writeFileSync(files.memory, Buffer.alloc(33 * MIB, 0xff));
  await using vmm = await bootDirty(dir, false);
  await pause(vmm);
  expectDone(await vmm.call("PUT", "/snapshot/create", create(files, "Diff")));
  expectMemory(files.memory);
});

test("a full snapshot over a file of the same length leaves nothing of it", async () => {
  using dir = new WorkDir();
  const files = filesIn(dir);
  writeFileSync(files.memory, Buffer.alloc(MEMORY, 0xff));
  await using vmm = await bootDirty(dir, false);
  await pause(vmm);
  expectDone(await vmm.call("PUT", "/snapshot/create", create(files)));
  expectMemory(files.memory);
  const end = Buffer.alloc(PAGE);
  const fd = openSync(files.memory, "r");
  readSync(fd, end, 0, PAGE, 64 * MIB);
  closeSync(fd);
  assert.ok(end.equals(Buffer.alloc(PAGE)));
});

test("two snapshots of one pause are the same instant, and the guest goes on from there", async () => {
  using dir = new WorkDir();
  await using vmm = await bootDirty(dir, false);
  await pause(vmm);
  const ticks: number[] = [];
  for (const name of ["one", "two", "three"]) {
    const files = filesIn(dir, name);
    expectDone(await vmm.call("PUT", "/snapshot/create", create(files)));
    ticks.push(expectMemory(files.memory));
  }
  assert.equal(new Set(ticks).size, 1);
  await goOn(vmm, 2);
});

test("a memory file that is longer than the memory is loaded", async () => {
  using dir = new WorkDir();
  const { tick, ...files } = await takeSnapshot(dir);
  truncateSync(files.memory, MEMORY + PAGE);
  await using vmm = await restore(dir, "copy", load(files));
  await vmm.console.waitForTick(tick + 2);
});

describe("a snapshot for which there is no room is a fault with the system's reason, and the guest goes on", () => {
  for (const part of ["memory", "state"] as const) {
    test(`for the ${part}`, async () => {
      using dir = new WorkDir();
      const small = dir.file("small");
      mkdirSync(small);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", small]);
      using unmount = new DisposableStack();
      unmount.defer(() => execFileSync("umount", [small]));
      if (part === "state") writeFileSync(`${small}/filler`, Buffer.alloc(4 * MIB));
      await using vmm = await bootDirty(dir, false);
      await pause(vmm);
      const files = { ...filesIn(dir), [part]: `${small}/${part}` };
      assert.match(expectFault(await vmm.call("PUT", "/snapshot/create", create(files))), /os error 28/);
      assert.equal(await vmm.state(), "Paused");
      expectDone(await vmm.call("PUT", "/snapshot/create", create(filesIn(dir, "elsewhere"))));
      expectMemory(filesIn(dir, "elsewhere").memory);
      await goOn(vmm, 2);
    });
  }
});
