import type { Audit, Repair } from "../../../../src/contract/audit.ts";
import type { Health } from "../../../../src/contract/health.ts";
import type { Machine } from "../../../../src/contract/machine.ts";
import type { Compatibility, Snapshot } from "../../../../src/contract/snapshot.ts";
import type { StorageReport } from "../../../../src/contract/storage.ts";

export const machine: Machine = {
  id: "web",
  artifact: {
    kernel_image_url: "file:///images/vmlinuz",
    rootfs_url: "file:///images/rootfs.ext4",
    kernel_sha256: "a".repeat(64),
    rootfs_sha256: "b".repeat(64),
  },
  image: "debian-slim",
  user_volume_ids: [],
  runtime_host: "10.200.0.6",
  ports: [{ name: "ssh", port: 22, protocol: "tcp" }],
  guest_ssh_host_public_key:
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAW4GgBoOGa2fAYL/8cGxbNZPxshIQeMNVFBna0ujrG1",
  guest_user: "root",
  hostname: "web",
  guest_machine_id: "0123456789abcdef0123456789abcdef",
  phase: "running",
  restart: "never",
  vcpus: 2,
  memory_mib: 512,
  storage_bytes: 2 * 2 ** 30,
  ready: "ssh",
  disk_clone: "copy",
  hardware: {
    io_engine: "Sync",
    cache_type: "Writeback",
    pci: false,
    huge_pages: "None",
    smt: false,
    track_dirty_pages: false,
  },
  created_at: "2030-01-02T03:04:05.000Z",
};

export const snapshot: Snapshot = {
  id: "before",
  machine_id: "web",
  created_at: "2030-01-02T03:04:05.000Z",
  consistency: "synced",
  paused_ms: 12.3,
  disk_clone: "copy",
  size_bytes: 512 * 2 ** 20,
  memory: "none",
  vcpus: 2,
  memory_mib: 512,
  artifacts: [{ id: "disk", kind: "disk", name: "disk.ext4", size_bytes: 512 * 2 ** 20 }],
};

export const verdict: Compatibility = {
  snapshot_id: "before",
  restorable: "disk",
  reasons: [{ code: "cpu_features", text: "This host's CPU lacks avx512f.", prevents: "live" }],
};

export const health: Health = {
  ok: true,
  version: "0.1.0",
  node_version: "26.0.0",
  uptime_seconds: 61.5,
  root_dir: "/var/lib/computer-host",
  tag: "a1b2c3",
  vmm: {
    name: "some-vmm",
    version: "1.0",
    firecracker_path: "/f",
    jailer_path: "/j",
    reason: "it was chosen",
  },
  machines: { starting: 0, running: 1, stopped: 2, failed: 0 },
  memory: { total_mib: 4096, committed_mib: 512, limit_mib: 3584 },
  disk_clone: "copy",
  warnings: [{ code: "disk_copies", severity: "warning", text: "Disks are copied." }],
};

export const audit: Audit = {
  items: [
    { resource: "namespace", name: "ch-a1b2c3-4", owner: "machine vm-1", status: "ok" },
    { resource: "jail", name: "abcdefghij", status: "leaked", detail: "no machine has it" },
  ],
  clean: false,
};

export const repair: Repair = {
  repaired: [{ resource: "jail", name: "abcdefghij", action: "removed, with what ran there", ok: true }],
  audit: { items: audit.items.slice(0, 1), clean: true },
};

export const storageReport: StorageReport = {
  root_dir: "/var/lib/computer-host",
  clone_mode: "reflink",
  total_bytes: 100 * 2 ** 30,
  free_bytes: 40 * 2 ** 30,
  images: { files: 3, apparent_bytes: 600 * 2 ** 20, used_bytes: 200 * 2 ** 20 },
  machines: [{ id: "web", apparent_bytes: 2 * 2 ** 30, used_bytes: 300 * 2 ** 20 }],
  snapshots: [{ id: "before", apparent_bytes: 512 * 2 ** 20, used_bytes: 250 * 2 ** 20 }],
};
