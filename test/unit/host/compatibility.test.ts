import assert from "node:assert/strict";
import { test } from "node:test";
import { snapshotId } from "../../../src/contract/ids.ts";
import { type Here, reasonsAgainst, verdict } from "../../../src/host/compatibility.ts";
import type { Manifest } from "../../../src/model/manifest.ts";

const host = {
  kernel: "6.1.0",
  architecture: "x86_64",
  cpu_vendor: "GenuineIntel",
  cpu_model: "a Xeon, 6, 85, 7",
  cpu_flags: ["avx2", "fpu", "sse2"],
};
const here: Here = { host, vmm: { name: "Firecracker", version: "1.17.0", snapshotFormat: "11.2.0" } };
const digest = { sha256_hex: "a".repeat(64) };

const taken: Manifest = {
  format: 2,
  snapshot_id: snapshotId("s"),
  machine_id: "m" as Manifest["machine_id"],
  created_at: "2026-01-01T00:00:00Z",
  image: {
    kernel_sha256: "b".repeat(64),
    initrd_sha256: "c".repeat(64),
    rootfs_sha256: "d".repeat(64),
    rootfs_size_bytes: 1024,
    kernel_image_url: "file:///k",
    rootfs_url: "file:///r",
    default_user: "root",
  },
  vcpus: 1,
  memory_mib: 128,
  ready: "ssh",
  hardware: { io_engine: "Sync", pci: false, huge_pages: "None", smt: false, track_dirty_pages: false },
  consistency: "synced",
  host,
  vmm: { name: "Firecracker", version: "1.16.0", snapshot_format: "11.1.0" },
  guest: { hostname: "m", guest_machine_id: "0".repeat(32), ssh_host_public_key: "k", login_key: "l" },
  memory_kind: "full",
  disk: { name: "disk.img", size_bytes: 1, ...digest },
  memory: { name: "memory.img", size_bytes: 1, ...digest },
  vmstate: { name: "vmstate.bin", size_bytes: 1, ...digest },
};
const { memory: _memory, vmstate: _vmstate, guest: _guest, ...diskOnly } = taken;

const judged = (manifest: Manifest, at: Here = here) => {
  const reasons = reasonsAgainst(manifest, at);
  return [verdict(manifest.snapshot_id, reasons).restorable, ...reasons.map(({ code }) => code)];
};
const on = (change: Partial<Here["host"]>): Here => ({ ...here, host: { ...host, ...change } });
const reading = (snapshotFormat: string): Here => ({ ...here, vmm: { ...here.vmm, snapshotFormat } });

test("what was taken here wakes here, and so it does under a newer VMM of the same major format", () => {
  assert.deepEqual(judged(taken), ["live"]);
  assert.deepEqual(judged(taken, reading("11.1.9")), ["live"]);
  assert.deepEqual(judged(taken, on({ kernel: "6.12.0", cpu_model: "another" })), ["live"]);
});

test("a format that is newer or of another major version, or none, is not loaded", () => {
  for (const reads of ["11.0.0", "12.1.0", "10.9.0", "11.1.0-fork", "unheard of"])
    assert.deepEqual(judged(taken, reading(reads)), ["disk", "other_snapshot_format"], reads);
  const { snapshot_format: _format, ...vmm } = taken.vmm;
  assert.deepEqual(judged({ ...taken, vmm }), ["disk", "other_snapshot_format"]);
  const odd = { ...taken, vmm: { ...taken.vmm, snapshot_format: "unheard of" } };
  assert.deepEqual(judged(odd, reading("unheard of")), ["live"], "the same words mean the same");
});

test("the state of one VMM is not another's, whatever its format is called", () => {
  const manifest = { ...taken, vmm: { ...taken.vmm, name: "another" } };
  assert.deepEqual(judged(manifest), ["disk", "other_vmm"]);
});

test("a guest wakes where its processor's features are, and with more of them", () => {
  assert.deepEqual(judged(taken, on({ cpu_flags: [...host.cpu_flags, "amx_tile"] })), ["live"]);
  assert.deepEqual(judged(taken, on({ cpu_flags: ["fpu"] })), ["disk", "cpu_features_missing"]);
  assert.deepEqual(judged(taken, on({ cpu_vendor: "AuthenticAMD", cpu_flags: [] })), [
    "disk",
    "other_cpu_vendor",
  ]);
  const [{ text } = { text: "" }] = reasonsAgainst(taken, on({ cpu_flags: [] }));
  assert.match(text, /avx2, fpu, sse2$/);
  const many = { ...taken, host: { ...host, cpu_flags: Array.from({ length: 20 }, (_, at) => `f${at}`) } };
  assert.match(reasonsAgainst(many, here)[0]?.text ?? "", /f7 and 12 more$/);
});

test("with a CPU template the guest saw no more features than that has; another vendor's it still can't be", () => {
  const manifest: Manifest = { ...taken, hardware: { ...taken.hardware, cpu_template: "T2" } };
  assert.deepEqual(judged(manifest, on({ cpu_flags: [] })), ["live"]);
  assert.deepEqual(judged(manifest, on({ cpu_vendor: "AuthenticAMD" })), ["disk", "other_cpu_vendor"]);
});

test("another architecture runs neither its memory nor its disk", () => {
  assert.equal(judged(taken, on({ architecture: "aarch64" }))[0], "no");
  assert.deepEqual(judged({ ...diskOnly, memory_kind: "none" }, on({ architecture: "aarch64" })), [
    "no",
    "other_architecture",
    "no_memory",
  ]);
});

test("a disk alone boots, whatever VMM and processor there are", () => {
  const manifest: Manifest = { ...diskOnly, memory_kind: "none" };
  for (const at of [here, on({ cpu_vendor: "AuthenticAMD", cpu_flags: [] }), reading("1.0.0")])
    assert.deepEqual(judged(manifest, at), ["disk", "no_memory"]);
});

test("memory in huge pages, or of a guest that nobody could reach, boots from its disk only", () => {
  assert.deepEqual(judged({ ...taken, hardware: { ...taken.hardware, huge_pages: "2M" } }), [
    "disk",
    "huge_pages",
  ]);
  const { guest: _nobody, ...manifest } = taken;
  assert.deepEqual(judged(manifest), ["disk", "guest_unknown"]);
});

test("all that speaks against it is told at once", () => {
  const manifest = { ...taken, vmm: { ...taken.vmm, name: "another" } };
  assert.deepEqual(judged(manifest, on({ cpu_vendor: "x" })), ["disk", "other_vmm", "other_cpu_vendor"]);
});
