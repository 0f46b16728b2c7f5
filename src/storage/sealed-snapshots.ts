import { lstat } from "node:fs/promises";
import { AppError, errnoOf } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import type { ArtifactKind } from "../contract/snapshot.ts";
import type { Manifest } from "../model/manifest.ts";
import { removeTree } from "../system/files.ts";
import { digestOpenFile, sha256Of } from "./digest.ts";
import { storageError } from "./errors.ts";
import { FILE_NAMES, type Layout } from "./layout.ts";
import { openForReading } from "./owned-file.ts";
import { SharedWork } from "./shared-work.ts";
import { parseManifest } from "./snapshot-manifest.ts";
import { type FileStatus, type Mark, isProven, markOf, readProof, writeProof } from "./snapshot-proof.ts";

/** Longer than any manifest of ours in bytes, short enough to be read into memory. */
export const LONGEST_MANIFEST = 1024 * 1024;

type FileKind = Exclude<ArtifactKind, "manifest">;

/** Finished snapshots: each a folder with files that nobody writes any more and a manifest that says what they are. */
export class SealedSnapshots {
  readonly #layout: Layout;
  readonly #checks = new SharedWork<void>();

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** The snapshot's manifest. Throws `snapshot_invalid` when it is missing, was changed, or is not one of this snapshot. */
  async manifest(id: SnapshotId): Promise<Manifest> {
    const paths = this.#layout.snapshot(id);
    const bytes = await this.#readManifest(id);
    const sealed = (await readProof(paths.proof))[FILE_NAMES.manifest]?.sha256;
    const found = sha256Of(bytes);
    if (sealed !== undefined && sealed !== found)
      throw damaged(id, "manifest", digestText(sealed), digestText(found));
    const parsed = parseManifest(bytes.toString("utf8"));
    if ("problem" in parsed) throw damaged(id, "manifest", "a manifest of a snapshot", parsed.problem);
    const { snapshot_id } = parsed.manifest;
    if (snapshot_id !== id)
      throw damaged(id, "manifest", `the snapshot_id ${id}`, `the snapshot_id ${snapshot_id}`);
    return parsed.manifest;
  }

  async #readManifest(id: SnapshotId): Promise<Buffer> {
    const { size } = await this.#statusOf(id, "manifest");
    if (size > LONGEST_MANIFEST)
      throw damaged(id, "manifest", `at most ${LONGEST_MANIFEST} bytes`, `${size} bytes`);
    try {
      await using handle = await openForReading(this.#layout.snapshot(id).manifest);
      return await handle.readFile();
    } catch (error) {
      throw unreadable(id, "manifest", error);
    }
  }

  /**
   * Makes sure that the files are those of the manifest. Callers at the same time share one look. Throws
   * `snapshot_invalid`, whose details name the artifact, its file, what was expected and what was found.
   */
  check(id: SnapshotId, what: "disk" | "all"): Promise<void> {
    return this.#checks.run(`${what} ${id}`, async () => {
      const manifest = await this.manifest(id);
      const { proof: path } = this.#layout.snapshot(id);
      const proof = await readProof(path);
      const kinds = what === "disk" ? (["disk"] as const) : (["disk", "vmstate", "memory"] as const);
      const fresh: Record<string, Mark> = {};
      for (const kind of kinds) {
        const mark = await this.#checkFile(id, kind, manifest, proof[FILE_NAMES[kind]]);
        if (mark !== undefined) fresh[FILE_NAMES[kind]] = mark;
      }
      if (Object.keys(fresh).length === 0) return;
      // Without room for the proof the files are read again the next time.
      await writeProof(path, { ...proof, ...fresh }).catch(() => {});
    });
  }

  /** Returns the file's new mark when it had to be read. */
  async #checkFile(
    id: SnapshotId,
    kind: FileKind,
    manifest: Manifest,
    mark: Mark | undefined,
  ): Promise<Mark | undefined> {
    const expected = manifest[kind];
    if (expected === undefined) return undefined;
    if (isProven(mark, await this.#look(id, kind, manifest), expected.sha256_hex)) return undefined;
    try {
      await using handle = await openForReading(this.#layout.snapshot(id)[kind]);
      // Taken before it is read, so that a write in the meantime leaves a mark that does not fit.
      const status = await handle.stat({ bigint: true });
      const { sha256 } = await digestOpenFile(handle);
      if (sha256 !== expected.sha256_hex)
        throw damaged(id, kind, digestText(expected.sha256_hex), digestText(sha256));
      return markOf(status, sha256);
    } catch (error) {
      throw unreadable(id, kind, error);
    }
  }

  /** Status of a file that is there, regular, and as long as the manifest says. */
  async #look(id: SnapshotId, kind: FileKind, manifest: Manifest): Promise<FileStatus> {
    const expected = manifest[kind];
    if (expected === undefined) throw damaged(id, kind, `${FILE_NAMES[kind]} in its manifest`, "none");
    const status = await this.#statusOf(id, kind);
    if (status.size !== BigInt(expected.size_bytes))
      throw damaged(id, kind, `${expected.size_bytes} bytes`, `${status.size} bytes`);
    return status;
  }

  async #statusOf(id: SnapshotId, artifact: ArtifactKind): Promise<FileStatus> {
    try {
      const status = await lstat(this.#layout.snapshot(id)[artifact], { bigint: true });
      if (status.isFile()) return status;
    } catch (error) {
      throw unreadable(id, artifact, error);
    }
    throw damaged(id, artifact, "a regular file", "something else");
  }

  /** Path of the snapshot's disk. Throws `snapshot_invalid` when it is missing or has another length than it should. */
  async disk(id: SnapshotId): Promise<string> {
    await this.#look(id, "disk", await this.manifest(id));
    return this.#layout.snapshot(id).disk;
  }

  /** Paths of the guest's memory and device state, likewise. */
  async memoryFiles(id: SnapshotId): Promise<{ memory: string; vmstate: string }> {
    const manifest = await this.manifest(id);
    const { memory, vmstate } = this.#layout.snapshot(id);
    await this.#look(id, "memory", manifest);
    await this.#look(id, "vmstate", manifest);
    return { memory, vmstate };
  }

  async remove(id: SnapshotId): Promise<void> {
    await removeTree(this.#layout.snapshot(id).folder, this.#layout.trash);
  }
}

function digestText(sha256: string): string {
  return `the SHA-256 ${sha256}`;
}

/** What is thrown when a file is not what it should be. */
export function damaged(
  id: SnapshotId,
  artifact: ArtifactKind,
  expected: string,
  found: string,
  cause?: unknown,
): AppError {
  const file = FILE_NAMES[artifact];
  return new AppError(
    "snapshot_invalid",
    `The ${artifact} of the snapshot ${id} cannot be used: in ${file}, ${expected} was expected and ${found} was found.`,
    { details: { artifact, file, expected, found }, cause },
  );
}

/** What is thrown when a file could not be opened or read. */
export function unreadable(id: SnapshotId, artifact: ArtifactKind, error: unknown): unknown {
  const errno = errnoOf(error);
  if (errno === "ENOENT") return damaged(id, artifact, "a regular file", "nothing", error);
  if (errno === "ELOOP") return damaged(id, artifact, "a regular file", "a link", error);
  if (errno === "EIO") return damaged(id, artifact, "a file that can be read", "an error of the disk", error);
  return storageError(error, `Reading the ${artifact} of the snapshot ${id}`);
}
