/** The guest kernel's command line: the client's, what Firecracker adds, and what TCG needs. */
import type { Accelerator } from "../shared/accelerator.ts";

/** Firecracker's default, for a client that gives none. */
const DEFAULT =
  "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";

/** With the byte that ends it. */
const MAX_LENGTH = 2048;

/** CONFIG_HZ of Debian's kernels; a kernel with another one only has its short delays a little off. */
const GUEST_HZ = 250;

export interface KernelCommandLine {
  readonly bootArgs: string | null;
  readonly rootDrive: { readonly partuuid: string | null; readonly readOnly: boolean } | undefined;
  readonly accelerator: Accelerator;
  /** The host's TSC frequency, which is the guest's too under TCG; undefined if it can't be told. */
  readonly tscKhz: number | undefined;
}

/** What is wrong with a client's arguments, or undefined. */
export function commandLineFault(text: string): string | undefined {
  if (!/^[ -~]*$/.test(text)) return "String contains a non-printable ASCII character.";
  return text.length >= MAX_LENGTH ? "Inserting string would make command line too long." : undefined;
}

/** Puts the command line together. What goes after ` -- ` in the client's stays at the end, for init. */
export function kernelCommandLine(input: KernelCommandLine): string {
  const [kernel = "", ...init] = (input.bootArgs ?? DEFAULT).split(" -- ");
  const words = kernel.split(" ").filter((part) => part !== "");
  words.push("pci=off");
  const root = input.rootDrive;
  if (root !== undefined) {
    words.push(root.partuuid === null ? "root=/dev/vda" : `root=PARTUUID=${root.partuuid}`);
    words.push(root.readOnly ? "ro" : "rw");
  }
  if (input.accelerator === "tcg") {
    const given = new Set(words.map((part) => part.split("=")[0]));
    words.push(...tcgWords(input.tscKhz).filter((part) => !given.has(part.split("=")[0])));
  }
  return [words.join(" "), ...init].join(" -- ");
}

/**
 * On a busy host the emulated timers come late, and a kernel that measures its clocks against each other at boot
 * gets lost ("Unable to calibrate against PIT") and never goes on. So it is told instead of left to measure.
 */
function tcgWords(tscKhz: number | undefined): readonly string[] {
  const known =
    tscKhz === undefined ? [] : [`tsc_early_khz=${tscKhz}`, `lpj=${Math.round((tscKhz * 1000) / GUEST_HZ)}`];
  return ["tsc=reliable", ...known, "no_timer_check", "mitigations=off", "cryptomgr.notests"];
}

/**
 * The TSC's frequency in kHz from the text of /proc/cpuinfo. Linux sets its delay loop from the TSC where the TSC
 * is constant, so that bogomips is twice the TSC's MHz; elsewhere the current clock is the best guess.
 * Undefined if the text has neither.
 */
export function tscKhzFromCpuinfo(cpuinfo: string): number | undefined {
  const bogomips = Number(/^bogomips\s*:\s*([0-9.]+)/m.exec(cpuinfo)?.[1]);
  const isConstant = /^flags\s*:.*\bconstant_tsc\b/m.test(cpuinfo);
  if (isConstant && bogomips > 0) return Math.round(bogomips * 500);
  const mhz = Number(/^cpu MHz\s*:\s*([0-9.]+)/m.exec(cpuinfo)?.[1]);
  return mhz > 0 ? Math.round(mhz * 1000) : undefined;
}
