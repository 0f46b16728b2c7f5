/** The bodies of Firecracker's API: field for field, in its order, since answers and complaints repeat that order. */
import { isIPv4 } from "node:net";

import {
  anything,
  checkedText,
  type Decoded,
  type Decoder,
  flag,
  list,
  maybe,
  need,
  parsedText,
  struct,
  text,
  unsigned,
  withDefault,
  word,
} from "./decode.ts";

type Body<D> = D extends Decoder<infer T> ? T : never;

const tokenBucketFields = {
  size: need(unsigned("u64")),
  one_time_burst: maybe(unsigned("u64")),
  refill_time: need(unsigned("u64")),
};
export const tokenBucket = struct("TokenBucketConfig", tokenBucketFields, true);
export type TokenBucketConfig = Decoded<typeof tokenBucketFields>;

const rateLimiterFields = { bandwidth: maybe(tokenBucket), ops: maybe(tokenBucket) };
export const rateLimiter = struct("RateLimiterConfig", rateLimiterFields);
export type RateLimiterConfig = Decoded<typeof rateLimiterFields>;

export const bootSource = struct("BootSourceConfig", {
  kernel_image_path: need(text),
  initrd_path: maybe(text),
  boot_args: maybe(text),
});
export type BootSource = Body<typeof bootSource>;

const CPU_TEMPLATES = ["C3", "T2", "T2S", "None", "T2CL", "T2A"] as const;
const HUGE_PAGES = ["None", "Transparent", "2M"] as const;

export const machineConfig = struct("MachineConfig", {
  vcpu_count: need(unsigned("u8")),
  mem_size_mib: need(unsigned("usize")),
  smt: withDefault(flag, false),
  cpu_template: maybe(word(CPU_TEMPLATES)),
  track_dirty_pages: withDefault(flag, false),
  huge_pages: withDefault(word(HUGE_PAGES), "None"),
});
export type MachineConfig = Body<typeof machineConfig>;

export const machineConfigUpdate = struct("MachineConfigUpdate", {
  vcpu_count: maybe(unsigned("u8")),
  mem_size_mib: maybe(unsigned("usize")),
  smt: maybe(flag),
  cpu_template: maybe(word(CPU_TEMPLATES)),
  track_dirty_pages: maybe(flag),
  huge_pages: maybe(word(HUGE_PAGES)),
});
export type MachineConfigUpdate = Body<typeof machineConfigUpdate>;

export const drive = struct("BlockDeviceConfig", {
  drive_id: need(text),
  partuuid: maybe(text),
  is_root_device: need(flag),
  cache_type: withDefault(word(["Unsafe", "Writeback"]), "Unsafe"),
  is_read_only: maybe(flag),
  path_on_host: maybe(text),
  rate_limiter: maybe(rateLimiter),
  io_engine: maybe(word(["Async", "Sync"])),
  socket: maybe(text),
});
export type Drive = Body<typeof drive>;

export const driveUpdate = struct("BlockDeviceUpdateConfig", {
  drive_id: need(text),
  path_on_host: maybe(text),
  rate_limiter: maybe(rateLimiter),
});
export type DriveUpdate = Body<typeof driveUpdate>;

const macAddress = checkedText((value) =>
  /^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(value)
    ? { ok: value.toLowerCase() }
    : { why: "The provided MAC address is invalid." },
);

export const networkInterface = struct("NetworkInterfaceConfig", {
  iface_id: need(text),
  host_dev_name: need(text),
  guest_mac: maybe(macAddress),
  mtu: maybe(unsigned("u16")),
  rx_rate_limiter: maybe(rateLimiter),
  tx_rate_limiter: maybe(rateLimiter),
});
export type NetworkInterface = Body<typeof networkInterface>;

export const networkInterfaceUpdate = struct("NetworkInterfaceUpdateConfig", {
  iface_id: need(text),
  rx_rate_limiter: maybe(rateLimiter),
  tx_rate_limiter: maybe(rateLimiter),
});
export type NetworkInterfaceUpdate = Body<typeof networkInterfaceUpdate>;

export const entropy = struct("EntropyDeviceConfig", { rate_limiter: maybe(rateLimiter) });
export type Entropy = Body<typeof entropy>;

export const balloon = struct("BalloonDeviceConfig", {
  amount_mib: need(unsigned("u32")),
  deflate_on_oom: need(flag),
  stats_polling_interval_s: withDefault(unsigned("u16"), 0),
  free_page_hinting: withDefault(flag, false),
  free_page_reporting: withDefault(flag, false),
});
export type Balloon = Body<typeof balloon>;

export const balloonUpdate = struct("BalloonUpdateConfig", { amount_mib: need(unsigned("u32")) });
export const balloonStatsUpdate = struct("BalloonUpdateStatsConfig", {
  stats_polling_interval_s: need(unsigned("u16")),
});

export const serial = struct("SerialConfig", {
  serial_out_path: maybe(text),
  rate_limiter: maybe(tokenBucket),
});
export type Serial = Body<typeof serial>;

export type LogLevel = "off" | "error" | "warn" | "info" | "debug" | "trace";

/** Level names are taken in any case; `warning` is another name for `warn`. Undefined for anything else. */
export function parseLogLevel(value: string): LogLevel | undefined {
  const name = value.toLowerCase();
  const levels: readonly LogLevel[] = ["off", "error", "warn", "info", "debug", "trace"];
  return name === "warning" ? "warn" : levels.find((level) => level === name);
}

const logLevel = checkedText((value) => {
  const level = parseLogLevel(value);
  return level === undefined ? { why: "Invalid LevelFilter" } : { ok: level };
});

export const logger = struct("LoggerConfig", {
  log_path: maybe(text),
  level: maybe(logLevel),
  show_level: maybe(flag),
  show_log_origin: maybe(flag),
  module: maybe(text),
});
export type LoggerConfig = Body<typeof logger>;

/** The one body in which unknown fields are let pass. */
export const metrics = struct(
  "MetricsConfig",
  { metrics_path: need(text), emit_id: withDefault(flag, false), properties: maybe(anything) },
  true,
);

const ipv4 = parsedText((value) => (isIPv4(value) ? { ok: value } : { why: "invalid IPv4 address syntax" }));

export const mmdsConfig = struct("MmdsConfig", {
  version: withDefault(word(["V1", "V2"]), "V1"),
  network_interfaces: need(list(text)),
  ipv4_address: maybe(ipv4),
  imds_compat: withDefault(flag, false),
});
export type MmdsConfig = Body<typeof mmdsConfig>;

export const vsock = struct("VsockDeviceConfig", {
  vsock_id: maybe(text),
  guest_cid: need(unsigned("u32")),
  uds_path: need(text),
});

export const actionBody = struct("ActionBody", {
  action_type: need(word(["FlushMetrics", "InstanceStart", "SendCtrlAltDel"])),
});

export const vmState = struct("Vm", { state: need(word(["Paused", "Resumed"])) });

export const snapshotCreate = struct("CreateSnapshotParams", {
  snapshot_type: withDefault(word(["Diff", "Full"]), "Full"),
  snapshot_path: need(text),
  mem_file_path: need(text),
});
export type SnapshotCreate = Body<typeof snapshotCreate>;

const networkOverride = struct("NetworkOverride", { iface_id: need(text), host_dev_name: need(text) }, true);

export const snapshotLoad = struct("LoadSnapshotConfig", {
  snapshot_path: need(text),
  mem_file_path: maybe(text),
  mem_backend: maybe(
    struct("MemBackendConfig", { backend_path: need(text), backend_type: need(word(["File", "Uffd"])) }),
  ),
  enable_diff_snapshots: withDefault(flag, false),
  track_dirty_pages: withDefault(flag, false),
  resume_vm: withDefault(flag, false),
  network_overrides: withDefault(list(networkOverride), []),
  vsock_override: maybe(struct("VsockOverride", { uds_path: need(text) }, true)),
  clock_realtime: withDefault(flag, false),
  huge_pages: withDefault(word(["Snapshot", "None", "Transparent", "2M"]), "Snapshot"),
});
export type SnapshotLoad = Body<typeof snapshotLoad>;

/** The whole configuration, as `--config-file` takes it. */
export const vmConfig = struct(
  "VmmConfig",
  {
    balloon: maybe(balloon),
    drives: need(list(drive)),
    "boot-source": need(bootSource),
    "cpu-config": maybe(anything),
    logger: maybe(logger),
    "machine-config": maybe(machineConfig),
    metrics: maybe(metrics),
    "mmds-config": maybe(mmdsConfig),
    "network-interfaces": withDefault(list(networkInterface), []),
    vsock: maybe(vsock),
    entropy: maybe(entropy),
    pmem: withDefault(list(anything), []),
    "memory-hotplug": maybe(anything),
  },
  true,
);
export type VmConfig = Body<typeof vmConfig>;
