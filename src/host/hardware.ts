import { AppError } from "../contract/errors.ts";
import type { HardwareOptions, RateLimits } from "../contract/machine.ts";
import type { HardwareRecord } from "../model/records.ts";
import { refuseBootArgs } from "./boot-args.ts";
import type { HostSettings } from "./context.ts";

/** What vCPUs and memory a machine has: some of its other hardware must agree with them. */
export interface Size {
  readonly vcpus: number;
  readonly memory_mib: number;
}

/** Firecracker counts a bucket's time in nanoseconds, 64 bits wide; its tokens must come at a rate that it can tell from none. */
const SLOWEST_BYTES_PER_SECOND = 1024;
const SLOWEST_OPERATIONS_PER_SECOND = 1;

/**
 * The hardware of a machine: what the request says, the defaults for what it leaves out, and what the settings say.
 * Throws `bad_request`, naming the field, for what the schema cannot tell: options that cannot be together, kernel
 * arguments that are the daemon's own.
 */
export function hardwareOf(
  request: HardwareOptions,
  size: Size,
  settings: Pick<HostSettings, "driveIoEngine" | "enablePci">,
): HardwareRecord {
  const hardware: HardwareRecord = {
    io_engine: settings.driveIoEngine,
    pci: settings.enablePci,
    huge_pages: "None",
    smt: false,
    track_dirty_pages: false,
    ...optionsOf(request),
  };
  refuseMisfit(hardware, size);
  if (hardware.rate_limits !== undefined) refuseStandstill(hardware.rate_limits);
  if (hardware.boot_args !== undefined) refuseBootArgs(hardware.boot_args);
  return hardware;
}

/** What a request says of the hardware beyond the defaults: what the digest of the request is made from. */
export function optionsOf(request: HardwareOptions): HardwareOptions {
  const { rate_limits, cpu_template, huge_pages, smt, track_dirty_pages, boot_args } = request;
  return {
    ...(rate_limits === undefined || Object.keys(rate_limits).length === 0 ? {} : { rate_limits }),
    ...(cpu_template === undefined ? {} : { cpu_template }),
    ...(huge_pages === "2M" ? { huge_pages } : {}),
    ...(smt === true ? { smt } : {}),
    ...(track_dirty_pages === true ? { track_dirty_pages } : {}),
    ...(boot_args === undefined ? {} : { boot_args }),
  };
}

/** What a machine has whose record is older than the options: the settings' and the defaults. */
export function recordedHardware(
  { hardware }: { readonly hardware?: HardwareRecord },
  settings: Pick<HostSettings, "driveIoEngine" | "enablePci">,
): HardwareRecord {
  return hardware ?? hardwareOf({}, { vcpus: 1, memory_mib: 64 }, settings);
}

/** Refuses (`bad_request`) a size that the VMM would not take together with the hardware. */
export function refuseMisfit({ smt, huge_pages }: HardwareRecord, { vcpus, memory_mib }: Size): void {
  if (smt && vcpus > 1 && vcpus % 2 === 1) {
    throw new AppError(
      "bad_request",
      `smt pairs vCPUs into cores, so vcpus must be 1 or even, and it is ${vcpus}`,
      { details: { field: "vcpus", smt, vcpus } },
    );
  }
  if (huge_pages === "2M" && memory_mib % 2 === 1) {
    throw new AppError(
      "bad_request",
      `huge_pages of 2M need a memory_mib that is even, and it is ${memory_mib}`,
      { details: { field: "memory_mib", huge_pages, memory_mib } },
    );
  }
}

/** Refuses limits under which a guest would stand still rather than be slow: that is no limit, but a mistake in a unit. */
function refuseStandstill(limits: RateLimits): void {
  for (const [device, limiter] of Object.entries(limits)) {
    for (const [what, slowest] of [
      ["bandwidth", SLOWEST_BYTES_PER_SECOND],
      ["ops", SLOWEST_OPERATIONS_PER_SECOND],
    ] as const) {
      const bucket = limiter[what];
      if (bucket === undefined) continue;
      const perSecond = (bucket.size * 1000) / bucket.refill_time_ms;
      if (perSecond >= slowest) continue;
      const field = `rate_limits.${device}.${what}`;
      throw new AppError(
        "bad_request",
        `${field} lets ${perSecond} ${what === "ops" ? "operations" : "bytes"} a second through, and the least is ${slowest}`,
        { details: { field, minimum_per_second: slowest } },
      );
    }
  }
}
