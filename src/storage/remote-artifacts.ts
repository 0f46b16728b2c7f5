import { AppError } from "../contract/errors.ts";
import type { ArtifactKind, RemoteSnapshot } from "../contract/snapshot.ts";
import type { Manifest } from "../model/manifest.ts";
import { checkedUrl, withoutQuery } from "./remote-url.ts";
import { LONGEST_MANIFEST } from "./sealed-snapshots.ts";

/** A file of a snapshot elsewhere, and what it must be. */
export interface RemoteArtifact {
  readonly kind: ArtifactKind;
  readonly url: URL;
  /** What its URL is called in errors. */
  readonly label: string;
  readonly size_bytes: number;
  readonly sha256_hex: string;
  /** Where the request names it. */
  readonly field: string;
}

export type RemoteArtifacts = Readonly<{
  disk: RemoteArtifact;
  manifest: RemoteArtifact;
  memory?: RemoteArtifact;
  vmstate?: RemoteArtifact;
}>;

export interface RemoteLimits {
  /** Largest file that is fetched, in bytes. */
  readonly maxBytes: number;
  /** Folders from which file URLs are taken. */
  readonly fileUrlDirs: readonly string[];
}

/**
 * The files of a snapshot as a request names them: one disk and one manifest, memory and vmstate both or neither, each to
 * be had at a URL and with its digest. Throws `bad_request` naming the field, `artifact_refused`.
 */
export function remoteArtifacts(remote: RemoteSnapshot, limits: RemoteLimits): RemoteArtifacts {
  const found: Partial<Record<ArtifactKind, RemoteArtifact>> = {};
  for (const [index, artifact] of remote.artifacts.entries()) {
    const field = `snapshot.artifacts.${index}`;
    const { kind, download_url, sha256_hex, size_bytes } = artifact;
    if (found[kind] !== undefined) throw malformed(`${field}.kind`, `is ${kind}, of which there is another`);
    if (download_url === undefined) throw malformed(`${field}.download_url`, "is needed to fetch it");
    if (sha256_hex === undefined) throw malformed(`${field}.sha256_hex`, "is needed to fetch it");
    const most = kind === "manifest" ? Math.min(LONGEST_MANIFEST, limits.maxBytes) : limits.maxBytes;
    if (size_bytes > most)
      throw malformed(`${field}.size_bytes`, `is ${size_bytes}, and at most ${most} are fetched`);
    const url = checkedUrl(download_url, limits.fileUrlDirs);
    found[kind] = { kind, url, label: withoutQuery(download_url), size_bytes, sha256_hex, field };
  }
  const { disk, manifest, memory, vmstate } = found;
  if (disk === undefined) throw malformed("snapshot.artifacts", "has no disk");
  if (manifest === undefined) throw malformed("snapshot.artifacts", "has no manifest");
  if (memory === undefined || vmstate === undefined) {
    if (memory === vmstate) return { disk, manifest };
    throw malformed("snapshot.artifacts", "has only one of memory and vmstate, which are of use together");
  }
  return { disk, manifest, memory, vmstate };
}

/**
 * Makes sure that a request and the manifest it led to tell of the same snapshot. Throws `bad_request` naming the field:
 * the manifest is the one whose digest the request has.
 */
export function checkAgreement(remote: RemoteSnapshot, artifacts: RemoteArtifacts, manifest: Manifest): void {
  for (const field of ["snapshot_id", "machine_id"] as const) {
    if (manifest[field] !== remote[field])
      throw malformed(`snapshot.${field}`, `is ${remote[field]}, but the manifest says ${manifest[field]}`);
  }
  for (const kind of ["disk", "memory", "vmstate"] as const) {
    const named = artifacts[kind];
    const expected = manifest[kind];
    if (named === undefined && expected === undefined) continue;
    if (named === undefined) throw malformed("snapshot.artifacts", `has no ${kind}, but the manifest does`);
    if (expected === undefined) throw malformed(named.field, `is a ${kind}, but the manifest has none`);
    for (const fact of ["size_bytes", "sha256_hex"] as const) {
      if (named[fact] !== expected[fact])
        throw malformed(
          `${named.field}.${fact}`,
          `is ${named[fact]}, but the manifest says ${expected[fact]}`,
        );
    }
  }
}

function malformed(field: string, problem: string): AppError {
  return new AppError("bad_request", `${field} ${problem}.`, { details: { field } });
}
