/**
 * KVM or TCG. `/dev/kvm` proves nothing: where the host is itself a guest of a kind, a stock kernel may not boot
 * under it. So KVM is taken only once a real kernel has booted under it on this boot of this host with this QEMU,
 * which is remembered; the probe uses the very kernel that the jail is about to boot.
 */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { release } from "node:os";
import { dirname, join } from "node:path";

import { kernelImageKind } from "./kernel-image.ts";

export type Accelerator = "kvm" | "tcg";

const RECORD = "/var/cache/computer-host/kvm-probe.json";
const QEMU = "/usr/bin/qemu-system-x86_64";
/** A probe that has not reached the end of the kernel's own boot by then has failed. A nested host is slow. */
const PROBE_TIMEOUT_MS = 60_000;
/** How far a kernel without root disk gets: to the search for it, with everything before it having worked. */
const BOOTED = /VFS: Unable to mount root|VFS: Cannot open root device|No working init found/;

interface ProbeRecord {
  readonly key: string;
  readonly works: boolean;
  readonly at: string;
}

/** What the jailer should use: an answer from the environment, else the remembered one, else a probe. */
export function chooseAccelerator(rootDir: string, wanted: string | undefined): Accelerator {
  if (wanted === "kvm" || wanted === "tcg") return wanted;
  if (!hasKvmDevice()) return "tcg";
  const remembered = readRecord();
  if (remembered !== undefined) return remembered ? "kvm" : "tcg";
  const kernel = findKernel(rootDir);
  if (kernel === undefined) return "tcg";
  return probeKvm(kernel) ? "kvm" : "tcg";
}

/** The remembered answer for this boot, kernel and QEMU; undefined if nothing is known. */
export function readRecord(): boolean | undefined {
  try {
    const record: unknown = JSON.parse(readFileSync(RECORD, "utf8"));
    if (isRecord(record) && record.key === hostKey()) return record.works;
  } catch {
    // No record, or one that can't be read: as good as none.
  }
  return undefined;
}

/** Boots `kernel` under KVM without a root disk, and remembers whether it got as far as looking for one. */
export function probeKvm(kernel: string): boolean {
  const works = hasKvmDevice() && BOOTED.test(bootConsole(kernel));
  const record: ProbeRecord = { key: hostKey(), works, at: new Date().toISOString() };
  mkdirSync(dirname(RECORD), { recursive: true });
  const temporary = `${RECORD}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(record)}\n`, { mode: 0o644 });
  renameSync(temporary, RECORD);
  return works;
}

export function hasKvmDevice(): boolean {
  return lstatSync("/dev/kvm", { throwIfNoEntry: false })?.isCharacterDevice() === true;
}

function bootConsole(kernel: string): string {
  const machine = ["-M", "microvm,acpi=on,rtc=on", "-accel", "kvm", "-cpu", "max", "-m", "128"];
  const quiet = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-device", "i8042"];
  // Quiet: on a nested host each character costs more than what the kernel does between two of them. A panic still shows.
  const boot = ["-kernel", kernel, "-append", "console=ttyS0 quiet reboot=k panic=-1"];
  try {
    return execFileSync(QEMU, [...machine, ...quiet, "-serial", "stdio", ...boot], {
      encoding: "utf8",
      timeout: PROBE_TIMEOUT_MS,
      killSignal: "SIGKILL",
      stdio: ["ignore", "pipe", "ignore"],
    });
  } catch (error) {
    return error instanceof Error && "stdout" in error ? String(error.stdout) : "";
  }
}

/** The largest kernel image in the jail's root, if it was filled before the jailer came. */
function findKernel(rootDir: string): string | undefined {
  const images = readdirSync(rootDir, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(rootDir, entry.name))
    .filter((path) => kernelImageKind(readHead(path)) !== undefined);
  return images.toSorted((a, b) => statSync(b).size - statSync(a).size)[0];
}

function readHead(path: string): Buffer {
  const head = Buffer.alloc(4096);
  const fd = openSync(path, "r");
  try {
    return head.subarray(0, readSync(fd, head));
  } finally {
    closeSync(fd);
  }
}

function hostKey(): string {
  const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const qemu = statSync(QEMU, { throwIfNoEntry: false });
  return [bootId, release(), qemu?.size, qemu?.mtimeMs].join(" ");
}

function isRecord(value: unknown): value is ProbeRecord {
  if (typeof value !== "object" || value === null) return false;
  return (
    "key" in value && typeof value.key === "string" && "works" in value && typeof value.works === "boolean"
  );
}
