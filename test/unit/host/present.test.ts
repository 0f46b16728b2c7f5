import assert from "node:assert/strict";
import { test } from "node:test";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { RECEIPT_ITEMS } from "../../../src/contract/machine.ts";
import { artifactKind, presentMachine, presentSnapshot } from "../../../src/host/present.ts";
import type { MachineRecord, SnapshotRecord } from "../../../src/model/records.ts";
import { FakeNetwork } from "../../support/fakes/network.ts";
import { FakeStorage } from "../../support/fakes/storage.ts";

const MIB = 2 ** 20;
const settings = {
  rootDir: "/fake",
  tag: "fake00",
  defaultImage: "debian-slim",
  driveIoEngine: "Async",
  enablePci: true,
  memoryOvercommit: 1,
  readyTimeoutMs: 1,
  stopTimeoutMs: 1,
  reconcileIntervalMs: 1,
  startWarnings: [],
} as const;
const context = { network: new FakeNetwork(), settings };
const file = (size_bytes: number, digit: string) => ({ size_bytes, sha256_hex: digit.repeat(64) });
const image = await new FakeStorage().localImage("debian-slim");

const machine: MachineRecord = {
  id: machineId("one"),
  phase: "running",
  request_sha256: "0".repeat(64),
  image,
  vcpus: 2,
  memory_mib: 256,
  storage_bytes: 512 * MIB,
  ready: "ssh",
  disk_clone: "copy",
  identity: {
    hostname: "one",
    guest_machine_id: "1".repeat(32),
    ssh_host_public_key: "ssh-ed25519 A",
    seed_sha256: "2".repeat(64),
  },
  slot: { index: 3, runtime_host: "10.200.0.7", tap_device: "tap0" },
  vmm: {
    jail_id: "j1",
    name: "fake",
    version: "1.17.0",
    uid: 200003,
    gid: 200003,
    process: { pid: 7, start_time_ticks: 1, boot_id: "b" },
  },
  created_at: "2030-01-01T00:00:00Z",
};
const snapshot: SnapshotRecord = {
  id: snapshotId("s1"),
  machine_id: machineId("one"),
  image,
  vcpus: 2,
  memory_mib: 256,
  consistency: "synced",
  paused_ms: 12.5,
  disk_clone: "copy",
  disk: file(512 * MIB, "a"),
  manifest: file(900, "b"),
  created_at: "2030-01-01T00:00:00Z",
};

test("a machine tells what confines its VMM, what its hardware is, and what was made its own", () => {
  const hardware = {
    io_engine: "Sync",
    pci: false,
    huge_pages: "None",
    smt: false,
    track_dirty_pages: true,
    boot_args: "quiet",
  } as const;
  const receipt = RECEIPT_ITEMS.map((item) => ({ item, done: true, how: "by hand" }));
  const limits = { no_file: 5, fsize_bytes: 6, memory_bytes: 7, cpus: 2, pids: 9 };
  assert.ok(machine.vmm !== undefined);
  const shown = presentMachine({ ...machine, hardware, receipt, vmm: { ...machine.vmm, limits } }, context);
  assert.deepEqual(shown.hardware, { ...hardware, cache_type: "Writeback" });
  assert.deepEqual(shown.receipt, receipt);
  const { new_pid_ns, seccomp, netns, ...vmm } = shown.vmm ?? assert.fail("it has no VMM");
  assert.deepEqual([new_pid_ns, seccomp, netns], [true, "default", "ch-fake00-3"]);
  assert.deepEqual(
    [vmm.limits, vmm.cgroup],
    [
      { no_file: 5, fsize_bytes: 6 },
      { memory_bytes: 7, cpus: 2, pids: 9 },
    ],
  );
});

test("a record from before hardware and limits were kept has the settings' and what was set then", () => {
  const { hardware, vmm, receipt } = presentMachine(machine, context);
  const defaults = { huge_pages: "None", smt: false, track_dirty_pages: false };
  assert.deepEqual(hardware, { io_engine: "Async", pci: true, cache_type: "Writeback", ...defaults });
  assert.deepEqual(vmm?.limits, { no_file: 4096, fsize_bytes: 768 * MIB });
  assert.deepEqual(vmm.cgroup, { memory_bytes: 512 * MIB, cpus: 2, pids: 128 });
  assert.equal(receipt, undefined);
});

test("a stopped machine has hardware and no VMM", () => {
  const { slot: _slot, vmm: _vmm, ...stopped } = machine;
  const shown = presentMachine({ ...stopped, phase: "stopped" }, context);
  assert.deepEqual([shown.vmm, shown.hardware.cache_type], [undefined, "Writeback"]);
});

test("a snapshot with memory has four artifacts, and each is found by its id", () => {
  const memory = { memory_kind: "diff", memory: file(256 * MIB, "c"), vmstate: file(20_000, "d") } as const;
  const record = { ...snapshot, ...memory };
  const shown = presentSnapshot(record);
  assert.deepEqual([shown.memory, shown.vcpus, shown.memory_mib], ["diff", 2, 256]);
  assert.deepEqual(
    shown.artifacts.map(({ id, kind, name, size_bytes }) => [id, kind, name, size_bytes]),
    [
      ["s1-disk", "disk", "disk.img", 512 * MIB],
      ["s1-memory", "memory", "memory.img", 256 * MIB],
      ["s1-vmstate", "vmstate", "vmstate.bin", 20_000],
      ["s1-manifest", "manifest", "manifest.json", 900],
    ],
  );
  for (const { id, kind } of shown.artifacts) assert.equal(artifactKind(record, id), kind);
});

test("a snapshot of a disk has two artifacts, and no id means a third", () => {
  const shown = presentSnapshot(snapshot);
  assert.equal(shown.memory, "none");
  assert.deepEqual(
    shown.artifacts.map(({ id }) => id),
    ["s1-disk", "s1-manifest"],
  );
  for (const id of ["s1-memory", "s1-vmstate", "s2-disk", "disk", ""])
    assert.equal(artifactKind(snapshot, id), undefined, id);
});
