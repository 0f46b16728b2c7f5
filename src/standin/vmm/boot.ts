/** From what was configured to how QEMU boots it. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

import type { Accelerator } from "../shared/accelerator.ts";
import { has64BitEntry, kernelImageKind } from "../shared/kernel-image.ts";
import { osErrorText } from "../shared/os-error.ts";
import { Fault } from "./fault.ts";
import { kernelCommandLine, tscKhzFromCpuinfo } from "./kernel-arguments.ts";
import type { VmBoot } from "./microvm.ts";
import type { Resources } from "./resources.ts";

const HEAD_BYTES = 4096;
const FAILED = "Start microvm error: System configuration error";
const BAD_KERNEL = "Cannot load kernel due to invalid memory configuration or invalid kernel image";

/** Throws Fault for a machine without a kernel, or with one that Firecracker's loader would refuse. */
export function planBoot(resources: Resources, accelerator: Accelerator): VmBoot {
  const source = resources.bootSource;
  if (source === undefined) {
    throw new Fault("Start microvm error: Cannot start microvm without kernel configuration.");
  }
  checkKernel(source.kernel_image_path);
  const [first] = resources.drives;
  const root = first?.is_root_device === true ? first : undefined;
  const commandLine = kernelCommandLine({
    bootArgs: source.boot_args,
    accelerator,
    rootDrive: root && { partuuid: root.partuuid, readOnly: root.is_read_only === true },
    tscKhz: tscKhzFromCpuinfo(readFileSync("/proc/cpuinfo", "utf8")),
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
