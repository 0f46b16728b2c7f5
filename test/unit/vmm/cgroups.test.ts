import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Cgroups, detectCgroups } from "../../../src/vmm/cgroups.ts";

const LIMITS = { memory_bytes: 268_435_456, cpus: 1.5, pids: 64 };

/** A folder that looks like a mounted cgroup v2 hierarchy. */
async function unified(controllers: string) {
  const directory = await mkdtemp(join(tmpdir(), "cgroup-"));
  await writeFile(join(directory, "cgroup.controllers"), `${controllers}\n`);
  return { directory, [Symbol.asyncDispose]: async () => await rm(directory, { recursive: true }) };
}

const V1_MOUNTS = `cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
`;

test("version 2 is used where its hierarchy has every controller", async () => {
  await using mount = await unified("cpuset cpu io memory hugetlb pids");
  const layout = await detectCgroups(`cgroup2 ${mount.directory} cgroup2 rw,relatime 0 0\n`);
  const cgroups = new Cgroups(layout, "slice/ours");
  assert.deepEqual(cgroups.missing, []);
  assert.deepEqual(cgroups.flags(LIMITS), [
    "--cgroup-version",
    "2",
    "--parent-cgroup",
    "slice/ours",
    "--cgroup",
    "memory.max=268435456",
    "--cgroup",
    "cpu.max=150000 100000",
    "--cgroup",
    "pids.max=64",
  ]);
});

test("version 1 is used where version 2 is mounted without the controllers", async () => {
  await using mount = await unified("hugetlb");
  const layout = await detectCgroups(`${V1_MOUNTS}cgroup2 ${mount.directory} cgroup2 rw 0 0\n`);
  const cgroups = new Cgroups(layout, "ours");
  assert.deepEqual(cgroups.missing, []);
  assert.deepEqual(cgroups.flags(LIMITS), [
    "--cgroup-version",
    "1",
    "--parent-cgroup",
    "ours",
    "--cgroup",
    "memory.limit_in_bytes=268435456",
    "--cgroup",
    "cpu.cfs_quota_us=150000",
    "--cgroup",
    "pids.max=64",
  ]);
});

test("a controller that is not there is named and not asked for", async () => {
  const layout = await detectCgroups("cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n");
  const cgroups = new Cgroups(layout, "ours");
  assert.deepEqual(cgroups.missing, ["cpu", "pids"]);
  assert.deepEqual(cgroups.flags(LIMITS).slice(4), ["--cgroup", "memory.limit_in_bytes=268435456"]);
});

test("without any controller no cgroup is asked for", async () => {
  const cgroups = new Cgroups(await detectCgroups("proc /proc proc rw 0 0\n"), "ours");
  assert.deepEqual(cgroups.flags(LIMITS), []);
  assert.deepEqual(await cgroups.processes("jail"), []);
  await cgroups.remove("jail");
});

test("on version 2 the controllers are passed down from the top to our parent", async () => {
  await using mount = await unified("cpu memory pids");
  const layout = await detectCgroups(`cgroup2 ${mount.directory} cgroup2 rw 0 0\n`);
  using _held = await new Cgroups(layout, "slice/ours").prepare();
  for (const group of ["", "slice", "slice/ours"])
    assert.equal(
      await readFile(join(mount.directory, group, "cgroup.subtree_control"), "utf8"),
      "+memory +cpu +pids",
    );
});

test("the parent goes with the last leaf, but not while something is being launched", async () => {
  await using mount = await unified("");
  const mounts = new Map([["memory", mount.directory] as const]);
  const cgroups = new Cgroups({ version: 1, mounts }, "ours");
  const there = async (path: string): Promise<boolean> =>
    await stat(join(mount.directory, path)).then(
      () => true,
      () => false,
    );
  {
    using _held = await cgroups.prepare();
    await mkdir(join(mount.directory, "ours/first"));
    await mkdir(join(mount.directory, "ours/second"));
    await cgroups.remove("first");
    await cgroups.remove("first");
    assert.equal(await there("ours/first"), false);
  }
  await cgroups.remove("none");
  assert.equal(await there("ours/second"), true);
  {
    using _held = await cgroups.prepare();
    await cgroups.remove("second");
    assert.equal(await there("ours"), true);
  }
  await cgroups.remove("second");
  assert.equal(await there("ours"), false);
});
