import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";
import { AppError } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import type { ArtifactKind } from "../contract/snapshot.ts";
import type { FileRecord } from "../model/records.ts";
import { digestOpenFile } from "./digest.ts";
import type { Layout } from "./layout.ts";
import { openForReading } from "./owned-file.ts";
import { recordOf } from "./seal.ts";
import { type SealedSnapshots, damaged, unreadable } from "./sealed-snapshots.ts";
import type { ReadableFile } from "./types.ts";

/** What is read at once: small enough that some streams at the same time take up little memory. */
const PIECE = 128 * 1024;

/**
 * Opens one file of a finished snapshot, once: whatever becomes of its name, its bytes are those that were found here.
 * Its length is checked, its digest is the manifest's word. Throws `snapshot_invalid`, `artifact_not_found`.
 */
export async function openSealed(
  layout: Layout,
  snapshots: SealedSnapshots,
  id: SnapshotId,
  kind: ArtifactKind,
): Promise<ReadableFile> {
  const manifest = await snapshots.manifest(id);
  const expected = kind === "manifest" ? "itself" : manifest[kind];
  if (expected === undefined) {
    throw new AppError("artifact_not_found", `The snapshot ${id} has no ${kind}.`, {
      details: { artifact: kind },
    });
  }
  try {
    await using opened = new AsyncDisposableStack();
    const handle = opened.use(await openForReading(layout.snapshot(id)[kind]));
    const record = expected === "itself" ? recordOf(await digestOpenFile(handle)) : expected;
    await checkLength(handle, id, kind, record);
    const kept = opened.move();
    return {
      size_bytes: record.size_bytes,
      sha256_hex: record.sha256_hex,
      stream: (start, end) => Readable.from(pieces(handle, id, kind, start, end), { objectMode: false }),
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  } catch (error) {
    throw unreadable(id, kind, error);
  }
}

async function checkLength(
  handle: FileHandle,
  id: SnapshotId,
  kind: ArtifactKind,
  { size_bytes }: FileRecord,
): Promise<void> {
  const { size } = await handle.stat();
  if (size !== size_bytes) throw damaged(id, kind, `${size_bytes} bytes`, `${size} bytes`);
}

/**
 * Not a stream of the handle's own: each of those leaves a listener on the handle behind, and an upload of many parts
 * makes thousands.
 */
async function* pieces(
  handle: FileHandle,
  id: SnapshotId,
  kind: ArtifactKind,
  start: number,
  end: number,
): AsyncGenerator<Buffer, void> {
  try {
    for (let at = start; at < end; ) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE, end - at));
      const { bytesRead } = await handle.read(piece, 0, piece.length, at);
      // A file that ends early must not pass for the whole of it.
      if (bytesRead === 0) throw damaged(id, kind, `at least ${end} bytes`, `${at} bytes`);
      at += bytesRead;
      yield piece.subarray(0, bytesRead);
    }
  } catch (error) {
    throw unreadable(id, kind, error);
  }
}
