import { readFile } from "node:fs/promises";
import { type Static, Type } from "typebox";
import { Compile } from "typebox/compile";
import { writeFileDurably } from "../system/files.ts";

const MarkSchema = Type.Object({
  dev: Type.String(),
  ino: Type.String(),
  size: Type.String(),
  mtime_ns: Type.String(),
  sha256: Type.String(),
});
const ProofSchema = Type.Record(Type.String(), MarkSchema);

/** By what a file is known to be the one that had this digest when it was last read. */
export type Mark = Static<typeof MarkSchema>;
/** The marks of a snapshot's files, by name. */
export type Proof = Static<typeof ProofSchema>;

const proof = Compile(ProofSchema);

/** Status of a file, as `stat` with `bigint` gives it. */
export interface FileStatus {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
}

/**
 * The mark of a file with this digest. Its change time is not in it: each hard link into a jail renews that, and so does
 * each one's end. Nobody but root can write to the file, so that its modification time is not set back either.
 */
export function markOf({ dev, ino, size, mtimeNs }: FileStatus, sha256: string): Mark {
  return { dev: `${dev}`, ino: `${ino}`, size: `${size}`, mtime_ns: `${mtimeNs}`, sha256 };
}

/** True when `mark` says that the file with this status has this digest. */
export function isProven(mark: Mark | undefined, status: FileStatus, sha256: string): boolean {
  if (mark === undefined) return false;
  const now = markOf(status, sha256);
  return (["dev", "ino", "size", "mtime_ns", "sha256"] as const).every((key) => mark[key] === now[key]);
}

/** Reads a proof; one that is missing or broken is as good as none: the files are read again. */
export async function readProof(path: string): Promise<Proof> {
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    return proof.Check(value) ? value : {};
  } catch {
    return {};
  }
}

/** Writes a proof, wholly or not at all. */
export async function writeProof(path: string, marks: Proof): Promise<void> {
  await writeFileDurably(path, `${JSON.stringify(marks)}\n`);
}
