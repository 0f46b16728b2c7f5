import { AppError } from "../contract/errors.ts";
import type { ArtifactSettings } from "./artifacts.ts";
import type { Cloner } from "./clone.ts";
import { type FileDigest, digestFile } from "./digest.ts";
import { download } from "./download.ts";
import { openFileUrl } from "./file-url.ts";
import { FILE_NAMES } from "./layout.ts";
import { createFile, setOwner, syncFile } from "./owned-file.ts";
import type { RemoteArtifact } from "./remote-artifacts.ts";
import { SparseWriter } from "./sparse-writer.ts";
import { withinTime } from "./within-time.ts";

/** What fetching a file depends on. */
export interface FetchContext {
  readonly cloner: Cloner;
  readonly settings: ArtifactSettings;
  /** Room that is there for it, in bytes. */
  readonly freeBytes: number;
  readonly signal: AbortSignal;
}

/**
 * Fetches a file of a snapshot into `target`, a new file that ends up root's, 0444, durable, with holes for zeros, and of
 * the size and digest it must have. Throws `snapshot_unavailable`, `snapshot_invalid`, `artifact_refused`, `disk_full`,
 * or the signal's reason.
 */
export async function fetchRemoteFile(
  artifact: RemoteArtifact,
  target: string,
  context: FetchContext,
): Promise<FileDigest> {
  try {
    const isLocal = artifact.url.protocol === "file:";
    const digest = await (isLocal ? copyFileUrl : downloadTo)(artifact, target, context);
    checkFetched(artifact, digest);
    await setOwner(target, 0, 0, 0o444);
    await syncFile(target);
    return digest;
  } catch (error) {
    throw ofSnapshot(artifact, error);
  }
}

async function downloadTo(
  artifact: RemoteArtifact,
  target: string,
  { settings, freeBytes, signal }: FetchContext,
): Promise<FileDigest> {
  await using handle = await createFile(target, 0o600);
  const result = await withinTime(settings.timeoutMs, artifact.label, signal, (bounded) =>
    download(artifact.url, new SparseWriter(handle), {
      maxBytes: artifact.size_bytes,
      tooLarge: () => wrong(artifact, `${artifact.size_bytes} bytes`, "more"),
      freeBytes,
      checkedLater: true,
      isInside: settings.isInside,
      backoffMs: settings.backoffMs,
      signal: bounded,
    }),
  );
  if (result.unchanged) throw new Error("the server says unchanged where nothing was there");
  return { sha256: result.sha256, size_bytes: result.size_bytes };
}

async function copyFileUrl(
  artifact: RemoteArtifact,
  target: string,
  { cloner, settings, signal }: FetchContext,
): Promise<FileDigest> {
  await using file = await openFileUrl(artifact.url, settings.fileUrlDirs);
  if (file.size_bytes !== artifact.size_bytes)
    throw wrong(artifact, `${artifact.size_bytes} bytes`, `${file.size_bytes} bytes`);
  await cloner.bringIn(file.path, target, signal);
  // The copy, which nobody else can change.
  return digestFile(target, signal);
}

function checkFetched(artifact: RemoteArtifact, { sha256, size_bytes }: FileDigest): void {
  if (size_bytes !== artifact.size_bytes)
    throw wrong(artifact, `${artifact.size_bytes} bytes`, `${size_bytes} bytes`);
  if (sha256 !== artifact.sha256_hex)
    throw wrong(artifact, `the SHA-256 ${artifact.sha256_hex}`, `the SHA-256 ${sha256}`);
}

function wrong({ kind, label }: RemoteArtifact, expected: string, found: string): AppError {
  return new AppError(
    "snapshot_invalid",
    `The ${kind} at ${label} is not that of the snapshot: it should have ${expected}, but has ${found}.`,
    { details: { artifact: kind, file: FILE_NAMES[kind], expected, found } },
  );
}

/** The error of a fetch, as one about the snapshot. */
function ofSnapshot({ kind }: RemoteArtifact, error: unknown): unknown {
  if (!(error instanceof AppError) || error.code !== "artifact_unavailable") return error;
  return new AppError("snapshot_unavailable", `The snapshot's ${kind}: ${error.message}`, {
    details: { artifact: kind },
    cause: error,
  });
}
