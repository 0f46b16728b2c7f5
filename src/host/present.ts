import type { Machine } from "../contract/machine.ts";
import type { ArtifactKind, Snapshot, SnapshotArtifact } from "../contract/snapshot.ts";
import type { MachineRecord, SnapshotRecord, VmmLimits } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { recordedHardware } from "./hardware.ts";

/** The port that every image with sshd serves. */
const SSH_PORT = { name: "ssh", port: 22, protocol: "tcp" } as const;

/** A machine as clients see it. */
export function presentMachine(
  record: MachineRecord,
  { network, settings }: Pick<HostContext, "network" | "settings">,
): Machine {
  const { image, slot, vmm, identity, receipt } = record;
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
            netns: network.slot(slot.index).netns,
            // So is every VMM launched; nobody can ask for less.
            new_pid_ns: true,
            seccomp: "default",
            ...presentLimits(vmm.limits ?? earlierLimits(record)),
          },
        }),
    hardware: { ...recordedHardware(record, settings), cache_type: "Writeback" },
    restart: record.restart ?? "never",
    ...(record.restarts === undefined ? {} : { restarts: record.restarts }),
    ...(record.ended === undefined ? {} : { ended: record.ended }),
    ...(receipt === undefined ? {} : { receipt: [...receipt] }),
    created_at: record.created_at,
    ...(record.started_at === undefined ? {} : { started_at: record.started_at }),
    ...(record.stopped_at === undefined ? {} : { stopped_at: record.stopped_at }),
  };
}

function presentLimits({ no_file, fsize_bytes, memory_bytes, cpus, pids }: VmmLimits) {
  return { limits: { no_file, fsize_bytes }, cgroup: { memory_bytes, cpus, pids } };
}

/** What VMMs were launched under before their limits were written down. */
function earlierLimits({ storage_bytes, memory_mib, vcpus }: MachineRecord): VmmLimits {
  const overhead = 256 * 1024 * 1024;
  const memory = memory_mib * 1024 * 1024;
  return {
    no_file: 4096,
    fsize_bytes: Math.max(storage_bytes, memory) + overhead,
    memory_bytes: memory + overhead,
    cpus: vcpus,
    pids: 128,
  };
}

/** The files of a snapshot, as clients see them. Ids are unique on the host. */
function presentArtifacts({ id, disk, memory, vmstate, manifest }: SnapshotRecord): SnapshotArtifact[] {
  return [
    { id: `${id}-disk`, kind: "disk", name: "disk.img", ...disk },
    ...(memory === undefined
      ? []
      : [{ id: `${id}-memory`, kind: "memory", name: "memory.img", ...memory } as const]),
    ...(vmstate === undefined
      ? []
      : [{ id: `${id}-vmstate`, kind: "vmstate", name: "vmstate.bin", ...vmstate } as const]),
    { id: `${id}-manifest`, kind: "manifest", name: "manifest.json", ...manifest },
  ];
}

/** Which file of the snapshot an artifact's id means; undefined when it means none. */
export function artifactKind(record: SnapshotRecord, artifactId: string): ArtifactKind | undefined {
  return presentArtifacts(record).find(({ id }) => id === artifactId)?.kind;
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
    memory: record.memory_kind ?? "none",
    vcpus: record.vcpus,
    memory_mib: record.memory_mib,
    artifacts: presentArtifacts(record),
  };
}
