/** The configuration as GET /vm/config and GET /machine-config tell it. */
import type { MachineConfig } from "./bodies.ts";
import type { Resources } from "./resources.ts";

/** All fields, in Firecracker's order; a CPU template is told only if there is one. */
export function machineConfigView(machine: MachineConfig): Readonly<Record<string, unknown>> {
  const { vcpu_count, mem_size_mib, smt, cpu_template, track_dirty_pages, huge_pages } = machine;
  const template = cpu_template === null ? {} : { cpu_template };
  return { vcpu_count, mem_size_mib, smt, ...template, track_dirty_pages, huge_pages };
}

/** What was configured. Logger, metrics and serial are not told, as Firecracker doesn't tell them. */
export function vmConfigView(resources: Resources): Readonly<Record<string, unknown>> {
  const { bootSource, balloon, entropy } = resources;
  const drives = resources.drives.map((drive) => ({
    drive_id: drive.drive_id,
    partuuid: drive.partuuid,
    is_root_device: drive.is_root_device,
    cache_type: drive.cache_type,
    is_read_only: drive.is_read_only,
    path_on_host: drive.path_on_host,
    rate_limiter: drive.rate_limiter,
    io_engine: drive.io_engine,
    socket: drive.socket,
  }));
  const networkInterfaces = resources.networkInterfaces.map((nic) => ({
    iface_id: nic.iface_id,
    host_dev_name: nic.host_dev_name,
    guest_mac: nic.guest_mac,
    mtu: nic.mtu,
    rx_rate_limiter: nic.rx_rate_limiter,
    tx_rate_limiter: nic.tx_rate_limiter,
  }));
  return {
    balloon: balloon ?? null,
    drives: drives,
    "boot-source": bootSource ?? { kernel_image_path: "", initrd_path: null, boot_args: null },
    "cpu-config": null,
    logger: null,
    "machine-config": machineConfigView(resources.machine),
    metrics: null,
    "mmds-config": resources.mmdsConfig ?? null,
    "network-interfaces": networkInterfaces,
    vsock: null,
    entropy: entropy ?? null,
    pmem: [],
    "memory-hotplug": null,
  };
}
