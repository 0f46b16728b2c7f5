import { AppError } from "../contract/errors.ts";
import { openForReading } from "./owned-file.ts";

export type FileKind = "kernel" | "rootfs";

/** A pattern at an offset by which a file shows what it is. */
interface Magic {
  readonly offset: number;
  readonly bytes: string;
  readonly name: string;
}

const FILESYSTEMS: readonly Magic[] = [
  { offset: 0x438, bytes: "\x53\xef", name: "ext4" },
  { offset: 0, bytes: "XFSB", name: "xfs" },
  { offset: 0x10040, bytes: "_BHRfS_M", name: "btrfs" },
];

/** What people hand in by mistake, so that the error can say it. */
const OTHERS: readonly Magic[] = [
  { offset: 0x200, bytes: "EFI PART", name: "a disk with a partition table" },
  { offset: 0, bytes: "\x1f\x8b", name: "compressed with gzip" },
  { offset: 0, bytes: "\xfd7zXZ\0", name: "compressed with xz" },
  { offset: 0, bytes: "\x28\xb5\x2f\xfd", name: "compressed with zstd" },
  { offset: 0, bytes: "BZh", name: "compressed with bzip2" },
  { offset: 0, bytes: "QFI\xfb", name: "a qcow2 image" },
  { offset: 0, bytes: "hsqs", name: "a squashfs image" },
  { offset: 0x101, bytes: "ustar", name: "a tar archive" },
  { offset: 0, bytes: "<", name: "an HTML or XML page" },
  { offset: 0x1fe, bytes: "\x55\xaa", name: "a disk with a partition table" },
];

const HEAD_BYTES = 0x10048;

function has(head: Buffer, { offset, bytes }: Magic): boolean {
  return head.subarray(offset, offset + bytes.length).equals(Buffer.from(bytes, "latin1"));
}

function isKernel(head: Buffer): boolean {
  const isElf = head.subarray(0, 4).equals(Buffer.from("\x7fELF", "latin1"));
  // 64 bits, little-endian, x86-64.
  if (isElf) return head[4] === 2 && head[5] === 1 && head.length > 20 && head.readUInt16LE(18) === 0x3e;
  // The boot sector's signature and the header of Linux's boot protocol.
  return (
    has(head, { offset: 0x1fe, bytes: "\x55\xaa", name: "" }) &&
    has(head, { offset: 0x202, bytes: "HdrS", name: "" })
  );
}

/** Says why the bytes at a file's start are not of `kind`; undefined when they are. */
export function kindProblem(kind: FileKind, head: Buffer): string | undefined {
  const gpt = OTHERS[0] !== undefined && has(head, OTHERS[0]);
  if (kind === "kernel" && isKernel(head)) return undefined;
  if (kind === "rootfs" && !gpt && FILESYSTEMS.some((magic) => has(head, magic))) return undefined;
  const other = OTHERS.find((magic) => has(head, magic));
  const looks =
    head.length === 0 ? "it is empty" : other === undefined ? "it is something else" : `it is ${other.name}`;
  return kind === "kernel"
    ? `not a kernel for x86-64 (an ELF vmlinux or a bzImage): ${looks}`
    : `not a raw filesystem image (ext4, xfs or btrfs): ${looks}`;
}

/** Throws `image_invalid` with `source` in its sentence when the file at `path` does not look like a `kind`. */
export async function checkKind(kind: FileKind, path: string, source: string): Promise<void> {
  await using handle = await openForReading(path);
  const head = Buffer.alloc(HEAD_BYTES);
  const { bytesRead } = await handle.read(head, 0, HEAD_BYTES, 0);
  const problem = kindProblem(kind, head.subarray(0, bytesRead));
  if (problem !== undefined) throw new AppError("image_invalid", `${source} is ${problem}.`);
}
