/** What has to be right before a snapshot's memory is loaded: its state file, and the devices that it names. */
import { closeSync } from "node:fs";

import type { Accelerator } from "../shared/accelerator.ts";
import type { SnapshotLoad } from "./bodies.ts";
import { Fault } from "./fault.ts";
import { checkDriveFile, checkTap, type Resources } from "./resources.ts";
import { openMemoryFile, readStateFile, type SnapshotState } from "./snapshot-files.ts";

export const RESTORE_FAILED = "Load snapshot error: Failed to restore from snapshot";

export interface RestorePlan extends Disposable {
  /** What the snapshot was taken under, which is all that it can go on under. */
  readonly accelerator: Accelerator;
  /** Stands at the start of the memory; closed with the plan. */
  readonly memoryFd: number;
}

/** Reads the state file, takes its devices over into `resources` and opens the memory file. Throws Fault. */
export function prepareRestore(config: SnapshotLoad, resources: Resources, here: Accelerator): RestorePlan {
  const state = readStateFile(config.snapshot_path);
  if (state.accelerator === "kvm" && here !== "kvm") {
    throw new Fault(
      `${RESTORE_FAILED}: Invalid snapshot state: it was taken under KVM, which this host has not`,
    );
  }
  takeOver(state, config, resources);
  checkDevices(resources);
  if (config.mem_backend?.backend_type === "Uffd") {
    const why = "the QEMU stand-in loads memory from files only";
    throw new Fault(
      `${RESTORE_FAILED}: Failed to load guest memory: Error creating guest memory from uffd: ${why}`,
    );
  }
  const path = config.mem_backend?.backend_path ?? config.mem_file_path ?? "";
  const memoryFd = openMemoryFile(path, state.pair);
  return { accelerator: state.accelerator, memoryFd, [Symbol.dispose]: () => closeSync(memoryFd) };
}

function takeOver(state: SnapshotState, config: SnapshotLoad, resources: Resources): void {
  const unknown = `${RESTORE_FAILED}: Failed to get snapshot state from file: Unknown`;
  const taps = new Map(config.network_overrides.map((entry) => [entry.iface_id, entry.host_dev_name]));
  const known = new Set(state.network_interfaces.map((nic) => nic.iface_id));
  if ([...taps.keys()].some((id) => !known.has(id))) throw new Fault(`${unknown} Network Device.`);
  if (config.vsock_override !== null) throw new Fault(`${unknown} Vsock Device.`);
  resources.machine = { ...state.machine_config, track_dirty_pages: config.track_dirty_pages };
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
  const failed = `${RESTORE_FAILED}: Failed to build microVM from snapshot: Failed to restore devices`;
  for (const drive of resources.drives) {
    checkDriveFile(drive.path_on_host ?? "", drive.is_read_only === true, (text) => {
      return `${failed}: Block: Virtio backend error: ${text}`;
    });
  }
  for (const nic of resources.networkInterfaces) checkTap(nic.host_dev_name, `${failed}: Net`);
}
