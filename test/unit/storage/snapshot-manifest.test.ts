import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { machine } from "node:os";
import { join } from "node:path";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { parseManifest } from "../../../src/storage/snapshot-manifest.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { M, draft, takeWithMemory, withMachine } from "./snapshot-support.ts";

const S = snapshotId("s");

const HARDWARE = { io_engine: "Sync", pci: false, huge_pages: "None", smt: false, track_dirty_pages: false };

test("a manifest of the first format is read as that of a disk snapshot, and its disk makes a machine", async (t) => {
  const { storage, root, image, rootfs } = await withMachine(t);
  await storage.stageSnapshot(M, S);
  const { disk } = await storage.finishSnapshot(S, draft(image, S));
  const folder = join(root, "snapshots", S);
  await rm(join(folder, "proof.json"));
  const common = {
    snapshot_id: S,
    machine_id: M,
    image,
    vcpus: 2,
    memory_mib: 512,
    consistency: "crash",
    vmm: { name: "firecracker", version: "1.12.0" },
    created_at: "2025-01-02T03:04:05.000Z",
    disk: { name: "disk.img", ...disk },
  };
  await rm(join(folder, "manifest.json"));
  await writeFile(
    join(folder, "manifest.json"),
    JSON.stringify({ format: 1, ...common, host_kernel: "6.1.0" }),
  );
  assert.deepEqual(await storage.readManifest(S), {
    ...common,
    format: 2,
    ready: "ssh",
    hardware: HARDWARE,
    memory_kind: "none",
    host: { kernel: "6.1.0", architecture: machine(), cpu_vendor: "", cpu_model: "", cpu_flags: [] },
  });
  await storage.checkSnapshot(S, "all");
  const restored = machineId("restored");
  await storage.makeMachine(restored);
  await storage.cloneSnapshotDisk(S, restored, undefined);
  assert.deepEqual(await readFile(storage.machineFiles(restored).disk), rootfs);
});

test("what a newer version added to a manifest is kept; what is wrong with one is said", async (t) => {
  const place = await withMachine(t);
  await takeWithMemory(place, S);
  const text = await readFile(join(place.root, "snapshots", S, "manifest.json"), "utf8");
  const parsed = (change: object): object =>
    parseManifest(JSON.stringify({ ...JSON.parse(text), ...change }));
  assert.deepEqual(parsed({ later: 1 }), { manifest: { ...JSON.parse(text), later: 1 } });
  const problems = [
    [{ format: 3 }, /^format /],
    [{ memory: undefined }, /no memory/],
    [{ vmstate: undefined }, /no memory/],
    [{ disk: { name: "disk.img", size_bytes: -1, sha256_hex: "" } }, /^disk\.size_bytes /],
    [{ machine_id: "../up" }, /^machine_id /],
    [{ memory_kind: "some" }, /^memory_kind /],
  ] as const;
  for (const [change, problem] of problems) {
    const result = parsed(change);
    assert.ok("problem" in result);
    assert.match(String(result.problem), problem, JSON.stringify(change));
  }
  for (const broken of ["", "{", "null", "[]", "7"]) assert.ok("problem" in parseManifest(broken), broken);
});

test("a manifest of another snapshot is not taken for this one's, nor one that has no end", async (t) => {
  const place = await withMachine(t);
  const { storage, root } = place;
  await takeWithMemory(place, S);
  const folder = join(root, "snapshots", S);
  const path = join(folder, "manifest.json");
  const value = JSON.parse(await readFile(path, "utf8"));
  await rm(join(folder, "proof.json"));
  await writeFile(path, JSON.stringify({ ...value, snapshot_id: "t" }));
  await assert.rejects(storage.readManifest(S), { code: "snapshot_invalid", message: /snapshot_id t/ });
  await writeFile(path, JSON.stringify({ ...value, later: "x".repeat(2 ** 20) }));
  await assert.rejects(storage.readManifest(S), {
    code: "snapshot_invalid",
    message: /at most 1048576 bytes/,
  });
  await writeFile(path, JSON.stringify(value));
  assert.deepEqual(await storage.readManifest(S), value);
});
