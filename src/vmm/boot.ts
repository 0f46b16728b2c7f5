import type { FirecrackerApi } from "./api.ts";
import type { GuestHardware } from "./types.ts";
import { isAtLeast, SERIAL_RATE_LIMITER, type Version } from "./version.ts";

const CONFIGURE_TIMEOUT_MS = 10_000;
/** Loading a kernel and an initrd from a cold page cache is part of the start. */
const START_TIMEOUT_MS = 30_000;

/**
 * What a guest may write to its console: a mebibyte at once, then as much as a serial line of 115,200 baud carries,
 * so that a guest that floods it cannot fill the host's disk within hours. The rest is dropped by the VMM.
 */
const CONSOLE_LIMIT = { size: 11_520, one_time_burst: 1024 * 1024, refill_time: 1000 } as const;

/**
 * Describes the guest to the VMM and starts it. The VMM handles one request at a time whatever the client does, so they
 * go out one after the other, the console first. Throws as `FirecrackerApi.send`.
 */
export async function bootGuest(
  api: FirecrackerApi,
  version: Version,
  hardware: GuestHardware,
  signal?: AbortSignal,
): Promise<void> {
  const put = async (path: string, body: object, timeoutMs = CONFIGURE_TIMEOUT_MS): Promise<void> => {
    await api.send({ method: "PUT", path, body, timeoutMs, signal });
  };
  await put("/serial", {
    serial_out_path: hardware.console_path,
    ...(isAtLeast(version, SERIAL_RATE_LIMITER) ? { rate_limiter: CONSOLE_LIMIT } : {}),
  });
  await put("/machine-config", { vcpu_count: hardware.vcpus, mem_size_mib: hardware.memory_mib });
  await put("/boot-source", {
    kernel_image_path: hardware.kernel_path,
    initrd_path: hardware.initrd_path,
    boot_args: hardware.boot_args,
  });
  // Writeback makes a guest's fsync reach the host's disk. The root device is always the first: /dev/vda.
  await put("/drives/rootfs", {
    drive_id: "rootfs",
    path_on_host: hardware.disk_path,
    is_root_device: true,
    is_read_only: false,
    cache_type: "Writeback",
    io_engine: hardware.io_engine,
  });
  await put("/drives/seed", {
    drive_id: "seed",
    path_on_host: hardware.seed_path,
    is_root_device: false,
    is_read_only: true,
    io_engine: hardware.io_engine,
  });
  await put("/network-interfaces/eth0", {
    iface_id: "eth0",
    host_dev_name: hardware.tap_device,
    guest_mac: hardware.guest_mac,
  });
  await put("/entropy", {});
  await put("/actions", { action_type: "InstanceStart" }, START_TIMEOUT_MS);
}
