/** What has to be right before a snapshot's memory is loaded: its state file, and the devices that it names. */
import { closeSync, openSync, readSync } from "node:fs";

import type { Accelerator } from "../shared/accelerator.ts";
import type { MachineConfig, SnapshotLoad } from "./bodies.ts";
import { Fault } from "./fault.ts";
import { checkDriveFile, checkTap, type Resources } from "./resources.ts";
import { openMemoryFile } from "./memory-file.ts";
import { readStateFile, type SnapshotState } from "./state-file.ts";

const MIB = 1024 * 1024;

export const RESTORE_FAILED = "Load snapshot error: Failed to restore from snapshot";

export interface RestorePlan extends Disposable {
  /** What the snapshot was taken under, which is all that it can go on under. */
  readonly accelerator: Accelerator;
  /** Both are closed with the plan. The first stands where the devices start. */
  readonly devicesFd: number;
  readonly memoryFd: number;
}

/** Reads the state file, takes its devices over into `resources` and opens the memory file. Throws Fault. */
export function prepareRestore(config: SnapshotLoad, resources: Resources, here: Accelerator): RestorePlan {
  using opened = new DisposableStack();
  const keep = (fd: number): number => opened.adopt(fd, closeSync);
  const { state, devicesOffset } = readStateFile(config.snapshot_path);
  if (state.accelerator === "kvm" && here !== "kvm") {
    throw new Fault(
      `${RESTORE_FAILED}: Invalid snapshot state: it was taken under KVM, which this host has not`,
    );
  }
  takeOver(state, config, resources);
  const memoryFd = keep(openMemory(config, resources.machine));
  checkDevices(resources);
  const devicesFd = keep(openSync(config.snapshot_path, "r"));
  readSync(devicesFd, Buffer.alloc(devicesOffset));
  const files = opened.move();
  return {
    accelerator: state.accelerator,
    devicesFd,
    memoryFd,
    [Symbol.dispose]: () => files.dispose(),
  };
}

function openMemory(config: SnapshotLoad, { huge_pages, mem_size_mib }: MachineConfig): number {
  const failed = `${RESTORE_FAILED}: Failed to load guest memory: Error creating guest memory from`;
  if (config.mem_backend?.backend_type === "Uffd")
    throw new Fault(`${failed} uffd: the QEMU stand-in loads memory from files only`);
  if (huge_pages === "2M") {
    throw new Fault(
      `${failed} file: Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd.`,
    );
  }
  const path = config.mem_backend?.backend_path ?? config.mem_file_path ?? "";
  return openMemoryFile(path, mem_size_mib * MIB);
}

function takeOver(state: SnapshotState, config: SnapshotLoad, resources: Resources): void {
  const unknown = `${RESTORE_FAILED}: Failed to get snapshot state from file: Unknown`;
  const taps = new Map(config.network_overrides.map((entry) => [entry.iface_id, entry.host_dev_name]));
  const known = new Set(state.network_interfaces.map((nic) => nic.iface_id));
  if ([...taps.keys()].some((id) => !known.has(id))) throw new Fault(`${unknown} Network Device.`);
  if (config.vsock_override !== null) throw new Fault(`${unknown} Vsock Device.`);
  const { huge_pages } = config;
  resources.machine = {
    ...state.machine_config,
    track_dirty_pages: config.track_dirty_pages || config.enable_diff_snapshots,
    huge_pages: huge_pages === "Snapshot" ? state.machine_config.huge_pages : huge_pages,
  };
  resources.bootSource = state.boot_source ?? undefined;
  resources.entropy = state.entropy ?? undefined;
  resources.balloon = state.balloon ?? undefined;
  resources.mmdsConfig = state.mmds_config ?? undefined;
  resources.drives = state.drives;
  resources.networkInterfaces = state.network_interfaces.map((nic) => ({
    ...nic,
    host_dev_name: taps.get(nic.iface_id) ?? nic.host_dev_name,
  }));
  resources.setMadeUpMacs(state.guest_macs);
}

function checkDevices(resources: Resources): void {
  const failed = `${RESTORE_FAILED}: Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices`;
  for (const drive of resources.drives) {
    checkDriveFile(drive.path_on_host ?? "", drive.is_read_only === true, (text) => {
      return `${failed}: Block: Virtio backend error: ${text}`;
    });
  }
  for (const nic of resources.networkInterfaces) checkTap(nic.host_dev_name, `${failed}: Net`);
}
