import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { MachineRecord, OperationRecord, SnapshotRecord } from "../../../src/model/records.ts";
import type { Log } from "../../../src/system/log.ts";
import type { Change, State } from "../../../src/state/types.ts";

const DIGEST = "ab".repeat(32);
const TIME = "2026-01-02T03:04:05.678Z";

const image = {
  kernel_sha256: DIGEST,
  initrd_sha256: DIGEST,
  rootfs_sha256: DIGEST,
  rootfs_size_bytes: 536870912,
  kernel_image_url: "file:///images/debian-slim/vmlinuz",
  rootfs_url: "file:///images/debian-slim/rootfs.ext4",
  default_user: "root",
};

export function machineRecord(id: string, change: Partial<MachineRecord> = {}): MachineRecord {
  return {
    id: machineId(id),
    phase: "running",
    request_sha256: DIGEST,
    image: { ...image, name: "debian-slim" },
    vcpus: 1,
    memory_mib: 512,
    storage_bytes: 536870912,
    ready: "ssh",
    disk_clone: "copy",
    identity: {
      hostname: id,
      guest_machine_id: "0".repeat(32),
      ssh_host_public_key: "ssh-ed25519 AAAA",
      seed_sha256: DIGEST,
    },
    slot: { index: 3, runtime_host: "10.200.0.7", tap_device: "tap0" },
    vmm: {
      jail_id: "j1",
      name: "firecracker",
      version: "1.17.0",
      uid: 200003,
      gid: 200003,
      process: { pid: 4711, start_time_ticks: 12345, boot_id: "b0" },
    },
    created_at: TIME,
    started_at: TIME,
    ...change,
  };
}

export function snapshotRecord(id: string): SnapshotRecord {
  return {
    id: snapshotId(id),
    machine_id: machineId("m"),
    image,
    vcpus: 1,
    memory_mib: 512,
    consistency: "synced",
    paused_ms: 1.5,
    disk_clone: "reflink",
    disk: { size_bytes: 1, sha256_hex: DIGEST },
    manifest: { size_bytes: 2, sha256_hex: DIGEST },
    created_at: TIME,
  };
}

export function operationRecord(id: string, second = 0): OperationRecord {
  const time = new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();
  return { id, kind: "create", machine_id: machineId("m"), started_at: time };
}

export function putOperation(id: string, second = 0): Change {
  return { put: "operation", record: operationRecord(id, second) };
}

/** All records as plain JSON, to compare. */
export function plain(state: State): unknown {
  const sorted = (map: ReadonlyMap<string, unknown>): unknown[] =>
    [...map.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, record]) => record);
  return structuredClone({
    machines: sorted(state.machines),
    snapshots: sorted(state.snapshots),
    operations: sorted(state.operations),
  });
}

/** A log that remembers the sentences it was given. */
export function rememberingLog(): Log & { readonly lines: string[] } {
  const lines: string[] = [];
  const keep =
    (level: string) =>
    (_: object, message: string): void => {
      lines.push(`${level}: ${message}`);
    };
  return { lines, debug: keep("debug"), info: keep("info"), warn: keep("warn"), error: keep("error") };
}
