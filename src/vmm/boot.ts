import { AppError } from "../contract/errors.ts";
import type { FirecrackerApi } from "./api.ts";
import { NETWORK_INTERFACE, rateLimiter, SEED_DISK, serial, SYSTEM_DISK } from "./devices.ts";
import type { GuestHardware } from "./types.ts";
import { BZIMAGE_KERNELS, isAtLeast, type Version } from "./version.ts";

const CONFIGURE_TIMEOUT_MS = 10_000;
/** Loading a kernel and an initrd from a cold page cache is part of the start. */
const START_TIMEOUT_MS = 30_000;
/** Where guests of every cloud look for their metadata. */
const METADATA_ADDRESS = "169.254.169.254";

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
  const { options } = hardware;
  await put("/serial", serial(version, hardware.console_path));
  await put("/machine-config", {
    vcpu_count: hardware.vcpus,
    mem_size_mib: hardware.memory_mib,
    smt: options.smt,
    track_dirty_pages: options.track_dirty_pages,
    huge_pages: options.huge_pages,
    ...(options.cpu_template === undefined ? {} : { cpu_template: options.cpu_template }),
  });
  await put("/boot-source", {
    kernel_image_path: hardware.kernel_path,
    initrd_path: hardware.initrd_path,
    boot_args: hardware.boot_args,
  });
  await putDrives(put, hardware);
  await putNetwork(put, hardware);
  await put("/entropy", {});
  try {
    await put("/actions", { action_type: "InstanceStart" }, START_TIMEOUT_MS);
  } catch (error) {
    throw withKernelNote(error, version);
  }
}

type Put = (path: string, body: object) => Promise<void>;

async function putDrives(put: Put, { disk_path, seed_path, options }: GuestHardware): Promise<void> {
  const { io_engine, rate_limits } = options;
  // Writeback makes a guest's fsync reach the host's disk. The root device is always the first: /dev/vda.
  await put(`/drives/${SYSTEM_DISK}`, {
    drive_id: SYSTEM_DISK,
    path_on_host: disk_path,
    is_root_device: true,
    is_read_only: false,
    cache_type: "Writeback",
    io_engine,
    ...(rate_limits?.disk === undefined ? {} : { rate_limiter: rateLimiter(rate_limits.disk) }),
  });
  await put(`/drives/${SEED_DISK}`, {
    drive_id: SEED_DISK,
    path_on_host: seed_path,
    is_root_device: false,
    is_read_only: true,
    io_engine,
  });
}

async function putNetwork(put: Put, hardware: GuestHardware): Promise<void> {
  const { network_rx, network_tx } = hardware.options.rate_limits ?? {};
  await put(`/network-interfaces/${NETWORK_INTERFACE}`, {
    iface_id: NETWORK_INTERFACE,
    host_dev_name: hardware.tap_device,
    guest_mac: hardware.guest_mac,
    ...(network_rx === undefined ? {} : { rx_rate_limiter: rateLimiter(network_rx) }),
    ...(network_tx === undefined ? {} : { tx_rate_limiter: rateLimiter(network_tx) }),
  });
  // Version 2 answers only with a session token, so that a request forged through a guest's proxy learns nothing.
  await put("/mmds/config", {
    version: "V2",
    network_interfaces: [NETWORK_INTERFACE],
    ipv4_address: METADATA_ADDRESS,
  });
  await put("/mmds", hardware.metadata);
}

/** An older VMM calls a bzImage only an invalid kernel: what it would take is said beside its words. */
function withKernelNote(error: unknown, version: Version): unknown {
  if (!(error instanceof AppError) || error.code !== "vmm_failed" || isAtLeast(version, BZIMAGE_KERNELS))
    return error;
  const note = `Firecracker ${version.text} boots only kernels that are uncompressed ELF files; a bzImage needs ${BZIMAGE_KERNELS.text}.`;
  return new AppError(error.code, error.message, { details: { ...error.details, note }, cause: error });
}
