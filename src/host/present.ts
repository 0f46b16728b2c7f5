import type { Machine } from "../contract/machine.ts";
import type { Snapshot, SnapshotArtifact } from "../contract/snapshot.ts";
import type { MachineRecord, SnapshotRecord } from "../model/records.ts";

/** The port that every image with sshd serves. */
const SSH_PORT = { name: "ssh", port: 22, protocol: "tcp" } as const;

/** A machine as clients see it. `netnsName` names the namespace of a slot. */
export function presentMachine(record: MachineRecord, netnsName: (index: number) => string): Machine {
  const { image, slot, vmm, identity } = record;
  return {
    id: record.id,
    artifact: {
      kernel_image_url: image.kernel_image_url,
      rootfs_url: image.rootfs_url,
      kernel_sha256: image.kernel_sha256,
      rootfs_sha256: image.rootfs_sha256,
    },
    ...(image.name === undefined ? {} : { image: image.name }),
    ...(record.snapshot_id === undefined ? {} : { snapshot_id: record.snapshot_id }),
    system_volume_id: record.id,
    user_volume_ids: [],
    ...(slot === undefined ? {} : { runtime_host: slot.runtime_host }),
    ports: record.ready === "ssh" ? [SSH_PORT] : [],
    guest_ssh_host_public_key: identity.ssh_host_public_key,
    guest_user: image.default_user,
    hostname: identity.hostname,
    guest_machine_id: identity.guest_machine_id,
    phase: record.phase,
    ...(record.paused === true ? { paused: true } : {}),
    ...(record.error === undefined ? {} : { error: record.error }),
    vcpus: record.vcpus,
    memory_mib: record.memory_mib,
    storage_bytes: record.storage_bytes,
    ready: record.ready,
    disk_clone: record.disk_clone,
    ...(slot === undefined || vmm?.process === undefined
      ? {}
      : {
          vmm: {
            name: vmm.name,
            version: vmm.version,
            pid: vmm.process.pid,
            uid: vmm.uid,
            gid: vmm.gid,
            jail_id: vmm.jail_id,
            netns: netnsName(slot.index),
          },
        }),
    created_at: record.created_at,
    ...(record.started_at === undefined ? {} : { started_at: record.started_at }),
    ...(record.stopped_at === undefined ? {} : { stopped_at: record.stopped_at }),
  };
}

/** The files of a snapshot, as clients see them. Ids are unique on the host. */
function presentArtifacts(record: SnapshotRecord): SnapshotArtifact[] {
  return [
    { id: `${record.id}-disk`, kind: "disk", name: "disk.img", ...record.disk },
    { id: `${record.id}-manifest`, kind: "manifest", name: "manifest.json", ...record.manifest },
  ];
}

/** A snapshot as clients see it. */
export function presentSnapshot(record: SnapshotRecord): Snapshot {
  return {
    id: record.id,
    machine_id: record.machine_id,
    ...(record.source_runtime_host === undefined ? {} : { source_runtime_host: record.source_runtime_host }),
    ...(record.source_tap_device === undefined ? {} : { source_tap_device: record.source_tap_device }),
    created_at: record.created_at,
    consistency: record.consistency,
    paused_ms: record.paused_ms,
    disk_clone: record.disk_clone,
    size_bytes: record.disk.size_bytes,
    artifacts: presentArtifacts(record),
  };
}
