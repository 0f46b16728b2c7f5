/** From what was configured to how QEMU boots it. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

import type { Accelerator } from "../shared/accelerator.ts";
import { has64BitEntry, kernelImageKind } from "../shared/kernel-image.ts";
import { osErrorText } from "../shared/os-error.ts";
import type { MachineConfig } from "./bodies.ts";
import { checkCpuTemplate } from "./cpu-template.ts";
import { Fault } from "./fault.ts";
import { kernelCommandLine, tscKhzFromCpuinfo } from "./kernel-arguments.ts";
import type { VmBoot } from "./microvm.ts";
import type { Resources } from "./resources.ts";

const HEAD_BYTES = 4096;
const HUGE_PAGE_MIB = 2;
const FAILED = "Start microvm error: System configuration error";
const BAD_KERNEL = "Cannot load kernel due to invalid memory configuration or invalid kernel image";

/** Throws Fault for a machine without a kernel, or with one that Firecracker's loader would refuse. */
export function planBoot(resources: Resources, accelerator: Accelerator): VmBoot {
  const source = resources.bootSource;
  if (source === undefined) {
    throw new Fault("Start microvm error: Cannot start microvm without kernel configuration.");
  }
  const cpuinfo = readFileSync("/proc/cpuinfo", "utf8");
  checkCpuTemplate(resources.machine.cpu_template, cpuinfo);
  checkKernel(source.kernel_image_path);
  checkHugePages(resources.machine);
  const [first] = resources.drives;
  const root = first?.is_root_device === true ? first : undefined;
  const commandLine = kernelCommandLine({
    bootArgs: source.boot_args,
    accelerator,
    rootDrive: root && { partuuid: root.partuuid, readOnly: root.is_read_only === true },
    tscKhz: tscKhzFromCpuinfo(cpuinfo),
  });
  return { from: "kernel", kernel: source.kernel_image_path, initrd: source.initrd_path, commandLine };
}

function checkKernel(path: string): void {
  const head = readHead(path);
  const kind = kernelImageKind(head);
  if (kind === undefined) {
    const words = "Kernel Loader: failed to load bzImage kernel image: Kernel Loader: Invalid bzImage";
    throw new Fault(`${FAILED}: ${BAD_KERNEL}: ${words}`);
  }
  if (kind === "bzimage" && !has64BitEntry(head)) {
    throw new Fault(`${FAILED}: bzImage does not provide a 64-bit entry point`);
  }
}

/** Firecracker notices an empty pool at the first thing that it puts into the memory, which is the kernel. */
function checkHugePages({ huge_pages, mem_size_mib }: MachineConfig): void {
  if (huge_pages !== "2M") return;
  const free = Number(/^HugePages_Free:\s*(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0);
  if (free * HUGE_PAGE_MIB >= mem_size_mib) return;
  const words = "Kernel Loader: failed to load ELF kernel image: Kernel Loader: Unable to read kernel image";
  throw new Fault(`${FAILED}: ${BAD_KERNEL}: ${words}`);
}

function readHead(path: string): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  let fd: number | undefined;
  try {
    fd = openSync(path, "r");
    return head.subarray(0, readSync(fd, head));
  } catch (cause) {
    throw new Fault(`${FAILED}: ${BAD_KERNEL}: ${osErrorText(cause)}`, { cause });
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
