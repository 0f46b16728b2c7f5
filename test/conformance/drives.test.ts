import assert from "node:assert/strict";
import { truncateSync, writeFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { Vmm } from "./support/vmm.ts";

const DISK_BYTES = 1 << 20;

function disk(vmm: Vmm, name: string): string {
  const path = vmm.dir.file(name);
  writeFileSync(path, "");
  truncateSync(path, DISK_BYTES);
  return path;
}

async function drives(vmm: Vmm): Promise<Record<string, unknown>[]> {
  return expectBody(await vmm.call("GET", "/vm/config"))["drives"] as Record<string, unknown>[];
}

test("a root disk and a read-only seed drive are kept in their order", async () => {
  await using vmm = await Vmm.start();
  const seed = {
    drive_id: "seed",
    path_on_host: disk(vmm, "seed"),
    is_root_device: false,
    is_read_only: true,
  };
  const root = {
    drive_id: "root_disk",
    path_on_host: disk(vmm, "root"),
    is_root_device: true,
    is_read_only: false,
    cache_type: "Writeback",
    io_engine: "Sync",
    rate_limiter: { bandwidth: { size: 1_000_000, refill_time: 100 } },
  };
  expectDone(await vmm.call("PUT", "/drives/seed", seed));
  expectDone(await vmm.call("PUT", "/drives/root_disk", root));
  const [first, second, ...others] = await drives(vmm);
  assert.deepEqual(others, []);
  // The root device comes first, whenever it was given.
  for (const [field, value] of Object.entries(root)) {
    if (field !== "rate_limiter") assert.deepEqual(first?.[field], value, field);
  }
  for (const [field, value] of Object.entries(seed)) assert.deepEqual(second?.[field], value, field);
  assert.equal(second?.["cache_type"], "Unsafe");
});

test("the guest is told to boot from a root device, in its mode, and from none if there is none", async () => {
  for (const [is_read_only, mode] of [
    [false, "rw"],
    [true, "ro"],
  ] as const) {
    await using vmm = await Vmm.start();
    const root = { drive_id: "root", path_on_host: disk(vmm, "root"), is_root_device: true, is_read_only };
    expectDone(await vmm.call("PUT", "/drives/root", root));
    await vmm.configureTinyGuest("idle");
    expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
    await vmm.console.waitForText("ready\n");
    assert.match(vmm.console.fact("arguments"), new RegExp(` root=/dev/vda ${mode}( |$)`));
  }
  await using vmm = await Vmm.boot("idle");
  assert.doesNotMatch(vmm.console.fact("arguments"), /root=/);
});

test("a drive of the same id replaces the first", async () => {
  await using vmm = await Vmm.start();
  for (const name of ["one", "two"]) {
    const body = { drive_id: "data", path_on_host: disk(vmm, name), is_root_device: false };
    expectDone(await vmm.call("PUT", "/drives/data", body));
  }
  const kept = await drives(vmm);
  assert.deepEqual(
    kept.map((drive) => drive["path_on_host"]),
    [vmm.dir.file("two")],
  );
});

test("a second root device is refused and the first stays", async () => {
  await using vmm = await Vmm.start();
  const root = (id: string) => ({ drive_id: id, path_on_host: disk(vmm, id), is_root_device: true });
  expectDone(await vmm.call("PUT", "/drives/a", root("a")));
  expectFault(await vmm.call("PUT", "/drives/b", root("b")));
  assert.deepEqual(
    (await drives(vmm)).map((drive) => drive["drive_id"]),
    ["a"],
  );
});

describe("refused drives", () => {
  const refused: [string, string, Record<string, unknown>][] = [
    ["another id in the path than in the body", "/drives/other", {}],
    ["no id in the path", "/drives", {}],
    ["a hyphen in the id", "/drives/my-disk", { drive_id: "my-disk" }],
    ["a file that is not there", "/drives/data", { path_on_host: "/nowhere/disk" }],
    ["no file", "/drives/data", { path_on_host: undefined }],
    ["no word on being the root", "/drives/data", { is_root_device: undefined }],
    ["an unknown field", "/drives/data", { size: 1 }],
    ["an unknown cache type", "/drives/data", { cache_type: "None" }],
    ["an unknown I/O engine", "/drives/data", { io_engine: "Fast" }],
    ["read-only as a string", "/drives/data", { is_read_only: "yes" }],
    ["a bucket without its refill time", "/drives/data", { rate_limiter: { ops: { size: 1 } } }],
    [
      "a bucket of less than nothing",
      "/drives/data",
      { rate_limiter: { ops: { size: -1, refill_time: 1 } } },
    ],
    ["an unknown bucket", "/drives/data", { rate_limiter: { files: { size: 1, refill_time: 1 } } }],
  ];
  let vmm: Vmm;
  before(async () => (vmm = await Vmm.start()));
  after(async () => await vmm[Symbol.asyncDispose]());
  for (const [name, path, change] of refused) {
    test(name, async () => {
      const good = { drive_id: "data", path_on_host: disk(vmm, "data"), is_root_device: false };
      expectFault(await vmm.call("PUT", path, { ...good, ...change }));
      assert.deepEqual(await drives(vmm), []);
    });
  }
});

test("a drive can be pointed to another file only after the boot", async () => {
  await using vmm = await Vmm.start();
  const path_on_host = disk(vmm, "one");
  expectDone(
    await vmm.call("PUT", "/drives/data", { drive_id: "data", path_on_host, is_root_device: false }),
  );
  const change = { drive_id: "data", path_on_host: disk(vmm, "two") };
  expectFault(await vmm.call("PATCH", "/drives/data", change));
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  expectFault(await vmm.call("PATCH", "/drives/other", { ...change, drive_id: "other" }));
  expectFault(await vmm.call("PATCH", "/drives/data", { ...change, path_on_host: "/nowhere/disk" }));
  expectDone(await vmm.call("PATCH", "/drives/data", change));
});

test("a running machine takes no further drive", async () => {
  await using vmm = await Vmm.boot("idle");
  const body = { drive_id: "late", path_on_host: disk(vmm, "late"), is_root_device: false };
  expectFault(await vmm.call("PUT", "/drives/late", body));
});

test("a running machine's drive takes new limits bucket by bucket, and its file anew when that has grown", async () => {
  await using vmm = await Vmm.start();
  const path_on_host = disk(vmm, "root");
  const bucket = (size: number) => ({ size, one_time_burst: null, refill_time: 100 });
  const limits = async () => (await drives(vmm))[0]?.["rate_limiter"];
  const root = { drive_id: "root", path_on_host, is_root_device: true, cache_type: "Writeback" };
  const rate_limiter = { bandwidth: { size: 1_000_000, refill_time: 100 } };
  expectDone(await vmm.call("PUT", "/drives/root", { ...root, rate_limiter }));
  await vmm.configureTinyGuest("count");
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  assert.deepEqual(await limits(), { bandwidth: bucket(1_000_000), ops: null });
  const ops = { ops: { size: 20, refill_time: 100 } };
  expectDone(await vmm.call("PATCH", "/drives/root", { drive_id: "root", rate_limiter: ops }));
  assert.deepEqual(await limits(), { bandwidth: bucket(1_000_000), ops: bucket(20) });
  truncateSync(path_on_host, 2 * DISK_BYTES);
  expectDone(await vmm.call("PATCH", "/drives/root", { drive_id: "root", path_on_host }));
  assert.deepEqual(await limits(), { bandwidth: bucket(1_000_000), ops: bucket(20) });
  for (const body of [
    { drive_id: "root" },
    { drive_id: "root", is_read_only: true },
    { drive_id: "other", path_on_host },
    { drive_id: "root", rate_limiter: { ops: { size: 1 } } },
  ]) {
    expectFault(await vmm.call("PATCH", "/drives/root", body));
  }
  await vmm.console.waitForTick(vmm.console.lastTick() + 2);
});
