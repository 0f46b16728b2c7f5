import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { HostItem } from "../../../src/model/inventory.ts";
import type { KnownVmm, LaunchSpec, Vmm } from "../../../src/vmm/types.ts";
import { type StubRoom, stubRoom } from "../../support/stub-vmm/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: it runs a jailer";

const wrong = (items: readonly HostItem[]): HostItem[] => items.filter(({ status }) => status !== "ok");
const named = (items: readonly HostItem[]): string[] =>
  wrong(items)
    .map(({ status, resource, name }) => `${status} ${resource} ${name}`)
    .sort();

async function running(room: StubRoom): Promise<{ vmm: Vmm; spec: LaunchSpec; known: KnownVmm }> {
  const spec = await room.spec();
  const vmm = await room.vmms.launch(spec);
  return { vmm, spec, known: { ...vmm.ref, limits: spec.limits } };
}

/** The leaves of a jail's cgroup, as the VMM's own process tells them. */
async function leavesOf({ ref: { process, jail_id } }: Vmm): Promise<string[]> {
  const lines = (await readFile(`/proc/${process.pid}/cgroup`, "utf8")).split("\n");
  const mounts = (await readFile("/proc/mounts", "utf8"))
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2");
  const paths = lines
    .filter((line) => line.endsWith(`/${jail_id}`))
    .map((line) => line.replace(/^.*?:.*?:/, ""));
  return mounts
    .flatMap(([, mount = ""]) => paths.map((path) => join(mount, path)))
    .filter((path, index, all) => existsSync(path) && all.indexOf(path) === index);
}

test("a VMM with its jail and cgroup is as it should be; without a record all of it is a leak, and removed", {
  skip,
}, async () => {
  await using room = await stubRoom();
  const { vmm, known } = await running(room);
  assert.deepEqual(named(await room.vmms.inventory([known])), []);
  const { jail_id } = vmm.ref;
  const found = await room.vmms.inventory([]);
  assert.deepEqual(named(found), [`leaked cgroup ${jail_id}`, `leaked jail ${jail_id}`]);
  const mended = await room.vmms.mend(wrong(found), []);
  assert.ok(
    mended.every(({ ok }) => ok),
    JSON.stringify(mended),
  );
  assert.deepEqual(await room.vmms.inventory([]), []);
  assert.ok(await vmm.waitGone(0));
  await vmm.detach();
  assert.deepEqual(await room.leftovers(), []);
});

test("a VMM whose cgroup was removed or changed is put back under its limits, and runs on", {
  skip,
}, async () => {
  await using room = await stubRoom();
  const { vmm, known } = await running(room);
  const { jail_id, process } = vmm.ref;
  const leaves = await leavesOf(vmm);
  assert.ok(leaves.length > 0);
  const before = await Promise.all(leaves.map((leaf) => readFile(join(leaf, "cgroup.procs"), "utf8")));
  for (const leaf of leaves) {
    await writeFile(join(leaf, "../../cgroup.procs"), String(process.pid));
    await rmdir(leaf);
  }
  const found = wrong(await room.vmms.inventory([known]));
  assert.deepEqual(named(found), [`missing cgroup ${jail_id}`]);
  const mended = await room.vmms.mend(found, [known]);
  assert.ok(
    mended.every(({ ok }) => ok),
    JSON.stringify(mended),
  );
  assert.deepEqual(named(await room.vmms.inventory([known])), []);
  assert.deepEqual(
    await Promise.all(leaves.map((leaf) => readFile(join(leaf, "cgroup.procs"), "utf8"))),
    before,
  );

  const file = leaves.map((leaf) => join(leaf, "pids.max")).find((path) => existsSync(path));
  assert.ok(file !== undefined);
  await writeFile(file, "max");
  assert.deepEqual(named(await room.vmms.inventory([known])), [`altered cgroup ${jail_id}`]);
  await room.vmms.mend(wrong(await room.vmms.inventory([known])), [known]);
  assert.equal((await readFile(file, "utf8")).trim(), String(known.limits?.pids));
  assert.equal(await vmm.waitGone(0), false);
  await vmm.kill();
});

test("a VMM or a jail that is gone is named, and not pretended to be mended", { skip }, async () => {
  await using room = await stubRoom();
  const { vmm, known } = await running(room);
  const { jail_id, process } = vmm.ref;
  await rm(join(room.rootDir, "jails", "stub-firecracker", jail_id), { recursive: true });
  const lost = wrong(await room.vmms.inventory([known]));
  assert.deepEqual(named(lost), [`missing jail ${jail_id}`]);
  const [mended] = await room.vmms.mend(lost, [known]);
  assert.equal(mended?.ok, false);
  assert.match(mended?.reason ?? "", /stop the machine and start it again/);
  await vmm.kill();
  assert.ok(
    named(await room.vmms.inventory([known])).includes(
      `missing process VMM ${process.pid} of jail ${jail_id}`,
    ),
  );
  await room.vmms.release(vmm.ref);
});

test("what somebody put among the jails is a leak where it is a folder, and no jail where it is a file", {
  skip,
}, async () => {
  await using room = await stubRoom();
  const folder = join(room.rootDir, "jails", "stub-firecracker");
  await mkdir(join(folder, "planted", "root"), { recursive: true });
  await writeFile(join(room.rootDir, "jails", "file"), "");
  const found = wrong(await room.vmms.inventory([]));
  assert.deepEqual(named(found), ["leaked jail planted"]);
  await room.vmms.mend(found, []);
  assert.equal(existsSync(join(folder, "planted")), false);
  assert.deepEqual(await room.vmms.listJails(), []);
  await rm(join(room.rootDir, "jails", "file"));
});
