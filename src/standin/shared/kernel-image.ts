/** What a kernel file is, told by its first bytes. */

export type KernelImageKind = "elf" | "bzimage";

const ELF_MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);
/** Offset 0x202 of a bzImage's setup header; `HdrS` says that there is one. */
const SETUP_MAGIC = Buffer.from("HdrS", "latin1");
const SETUP_MAGIC_OFFSET = 0x202;
const VERSION_OFFSET = 0x206;
const XLOADFLAGS_OFFSET = 0x236;

/** The kind of image, or undefined for anything that is not a kernel. `head`: the first 4 KiB. */
export function kernelImageKind(head: Buffer): KernelImageKind | undefined {
  if (head.subarray(0, ELF_MAGIC.length).equals(ELF_MAGIC)) return "elf";
  const magic = head.subarray(SETUP_MAGIC_OFFSET, SETUP_MAGIC_OFFSET + SETUP_MAGIC.length);
  return magic.equals(SETUP_MAGIC) ? "bzimage" : undefined;
}

/** True if a bzImage has a 64-bit entry point (boot protocol 2.12 and XLF_KERNEL_64). */
export function has64BitEntry(head: Buffer): boolean {
  if (head.length < XLOADFLAGS_OFFSET + 2) return false;
  return head.readUInt16LE(VERSION_OFFSET) >= 0x020c && (head.readUInt16LE(XLOADFLAGS_OFFSET) & 1) === 1;
}
