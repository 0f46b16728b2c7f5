import { type Finding, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

/** Host kernels on which Firecracker's releases are tested. */
const TESTED = ["5.10", "6.1", "6.18"];

const TIME_KEEPERS = ["chronyd", "ntpd", "openntpd", "systemd-timesyn", "phc2sys"];

/** The kernel itself: its version, its console, its randomness and its clock. */
export function kernelFindings(files: HostFiles): Finding[] {
  return [version(files), consoleLevel(files), entropy(files), clock(files)];
}

function release(files: HostFiles): string {
  return files.text("/proc/sys/kernel/osrelease") ?? "unknown";
}

/** True when the running kernel is `major.minor` or newer. */
export function isKernelAtLeast(files: HostFiles, major: number, minor: number): boolean {
  const [ourMajor = 0, ourMinor = 0] = release(files).split(/[.-]/).map(Number);
  return ourMajor > major || (ourMajor === major && ourMinor >= minor);
}

function version(files: HostFiles): Finding {
  const name = release(files);
  if (!isKernelAtLeast(files, 5, 10))
    return warn(
      "kernel",
      `${name} is older than any that Firecracker is tested on: take ${TESTED.join(", ")}`,
    );
  if (
    TESTED.some((tested) => name === tested || name.startsWith(`${tested}.`) || name.startsWith(`${tested}-`))
  )
    return ok("kernel", `${name}, of a series that Firecracker is tested on; keep it patched`);
  return warn("kernel", `${name}: Firecracker is tested on ${TESTED.join(", ")}, and others may surprise`);
}

/** Making taps and bridges logs lines, and a serial console takes its time for each. */
function consoleLevel(files: HostFiles): Finding {
  const level = Number(files.text("/proc/sys/kernel/printk")?.split(/\s/)[0] ?? 0);
  const isSerial = /\bconsole=tty(?:S|AMA)/.test(files.text("/proc/cmdline") ?? "");
  if (!isSerial || level <= 4)
    return ok("console", `log level ${level}${isSerial ? " on a serial console" : ""}`);
  return warn(
    "console",
    `the kernel logs at level ${level} to a serial console, which slows starts and restores: boot with quiet loglevel=1`,
  );
}

function entropy(files: HostFiles): Finding {
  const bits = Number(files.text("/proc/sys/kernel/random/entropy_avail") ?? 0);
  if (bits >= 128) return ok("entropy", `${bits} bits`);
  return warn(
    "entropy",
    `only ${bits} bits, and guests are seeded from it: run rngd, or give the host a random number generator`,
  );
}

/** A restored guest's clock is set from the host's. */
function clock(files: HostFiles): Finding {
  if (files.exists("/run/systemd/timesync/synchronized"))
    return ok("clock", "synchronized by systemd-timesyncd");
  const running = files
    .list("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => files.text(`/proc/${pid}/comm`) ?? "")
    .find((name) => TIME_KEEPERS.includes(name));
  if (running !== undefined) return ok("clock", `${running} runs`);
  return warn(
    "clock",
    "nothing seems to keep it right, and guests take the time from it: run chrony or systemd-timesyncd",
  );
}
