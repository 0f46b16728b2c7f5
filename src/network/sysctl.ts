import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { Log } from "../system/log.ts";

/**
 * Turns forwarding on for packets that come in by `device`, and says so when that changed something. Only this device:
 * `net.ipv4.ip_forward` would make a router of the whole host. The device of a slot gets the same when it is made.
 */
export function enableForwarding(device: string, log: Log): void {
  const path = `/proc/sys/net/ipv4/conf/${device}/forwarding`;
  const before = readFileSync(path, "utf8").trim();
  if (before === "1") return;
  writeFileSync(path, "1");
  log.info(
    { sysctl: `net.ipv4.conf.${device}.forwarding`, before, after: "1" },
    `set the sysctl net.ipv4.conf.${device}.forwarding to 1 (it was ${before}): guests go out by this device`,
  );
}

/** True when packets that come in by `device` are forwarded. */
export function isForwarding(device: string): boolean {
  const path = `/proc/sys/net/ipv4/conf/${device}/forwarding`;
  return existsSync(path) && readFileSync(path, "utf8").trim() === "1";
}

/** True when this namespace has a device of this name; /sys may show another namespace, /proc/sys never does. */
export function hasDevice(device: string): boolean {
  return !/[/\s]/.test(device) && existsSync(`/proc/sys/net/ipv4/conf/${device}/forwarding`);
}
