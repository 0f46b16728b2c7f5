import type { RateLimiter, TokenBucket } from "../contract/machine.ts";
import { isAtLeast, SERIAL_RATE_LIMITER, type Version } from "./version.ts";

/** The ids that Firecracker knows the devices by: letters, digits and underscores only. */
export const SYSTEM_DISK = "rootfs";
export const SEED_DISK = "seed";
export const NETWORK_INTERFACE = "eth0";

/**
 * What a guest may write to its console: a mebibyte at once, then as much as a serial line of 115,200 baud carries,
 * so that a guest that floods it cannot fill the host's disk within hours. The rest is dropped by the VMM.
 */
const CONSOLE_LIMIT = { size: 11_520, one_time_burst: 1024 * 1024, refill_time: 1000 } as const;

/** The body of `PUT /serial`: the guest's console goes to the file at `path` in the jail. */
export function serial(version: Version, path: string): object {
  return {
    serial_out_path: path,
    ...(isAtLeast(version, SERIAL_RATE_LIMITER) ? { rate_limiter: CONSOLE_LIMIT } : {}),
  };
}

/** A rate limiter in Firecracker's terms. */
export function rateLimiter({ bandwidth, ops }: RateLimiter): object {
  return {
    ...(bandwidth === undefined ? {} : { bandwidth: tokenBucket(bandwidth) }),
    ...(ops === undefined ? {} : { ops: tokenBucket(ops) }),
  };
}

function tokenBucket({ size, refill_time_ms, one_time_burst }: TokenBucket): object {
  return {
    size,
    refill_time: refill_time_ms,
    ...(one_time_burst === undefined ? {} : { one_time_burst }),
  };
}
