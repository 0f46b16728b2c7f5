import { rm, statfs } from "node:fs/promises";
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { AppError } from "../contract/errors.ts";
import type { FileDigest } from "./digest.ts";
import { type DigestStore, checkDigest } from "./digest-store.ts";
import { type Downloaded, type Validators, download } from "./download.ts";
import { type FileKind, checkKind } from "./file-kind.ts";
import { openFileUrl } from "./file-url.ts";
import { createFile } from "./owned-file.ts";
import { checkedUrl, withoutQuery } from "./remote-url.ts";
import { SharedWork } from "./shared-work.ts";
import { SparseWriter } from "./sparse-writer.ts";
import { withinTime } from "./within-time.ts";

/** What was learned of a URL: which file it gave, and by what that version is recognised. */
const NoteSchema = Type.Object({
  sha256: Type.String(),
  etag: Type.Optional(Type.String()),
  last_modified: Type.Optional(Type.String()),
  /** Of a file URL. */
  fingerprint: Type.Optional(Type.String()),
});
const note = Compile(NoteSchema);

export interface ArtifactSettings {
  /** Folders from which file URLs are taken. */
  readonly fileUrlDirs: readonly string[];
  /** Largest file that is fetched, in bytes. */
  readonly maxBytes: number;
  /** Longest time for one file in milliseconds. */
  readonly timeoutMs: number;
  /** Tests stand an address of loopback in for an inner one. */
  readonly isInside?: (address: string) => boolean;
  readonly backoffMs?: number;
  /** How long a store that is sent to may neither take a byte nor answer, in milliseconds. */
  readonly uploadStallMs?: number;
}

/** One file that a client asks for by URL. */
export interface Wanted {
  readonly kind: FileKind;
  readonly url: string;
  readonly sha256?: string | undefined;
}

/** Files that clients name by URL, fetched once into the store. */
export class Artifacts {
  readonly #store: DigestStore;
  readonly #settings: ArtifactSettings;
  readonly #fetches = new SharedWork<FileDigest>();

  constructor(store: DigestStore, settings: ArtifactSettings) {
    this.#store = store;
    this.#settings = settings;
  }

  /**
   * The store's file for `wanted`. With a digest that the store has, nothing is asked of anybody; without one the
   * server is asked whether its file is still the one we have. Callers at the same time share one transfer.
   * Throws `artifact_refused`, `artifact_unavailable`, `image_invalid`, `disk_full`.
   */
  async get(request: Wanted, signal?: AbortSignal): Promise<FileDigest> {
    const url = checkedUrl(request.url, this.#settings.fileUrlDirs);
    const wanted = { ...request, url: withoutQuery(request.url) };
    if (wanted.sha256 !== undefined) {
      const size = await this.#store.sizeOf(wanted.sha256);
      if (size !== undefined) {
        await checkKind(wanted.kind, this.#store.path(wanted.sha256), wanted.url);
        return { sha256: wanted.sha256, size_bytes: size };
      }
    }
    const key = [wanted.kind, wanted.sha256 ?? "", url.href].join(" ");
    return this.#fetches.run(
      key,
      (shared) =>
        url.protocol === "file:" ? this.#take(url, wanted, shared) : this.#download(url, wanted, shared),
      signal,
    );
  }

  /** What is known of the URL, if the store still has its file. */
  async #known(
    url: URL,
  ): Promise<({ size_bytes: number; fingerprint?: string } & FileDigest & Validators) | undefined> {
    const known = await this.#store.recall(url.href);
    if (!note.Check(known)) return undefined;
    const size = await this.#store.sizeOf(known.sha256);
    return size === undefined ? undefined : { ...known, size_bytes: size };
  }

  async #take(url: URL, wanted: Wanted, signal: AbortSignal): Promise<FileDigest> {
    await using file = await openFileUrl(url, this.#settings.fileUrlDirs);
    if (file.size_bytes > this.#settings.maxBytes) {
      throw new AppError(
        "artifact_refused",
        `${wanted.url} is larger than ${this.#settings.maxBytes} bytes.`,
      );
    }
    const known = await this.#known(url);
    if (known?.fingerprint === file.fingerprint) return this.#again(known, wanted);
    const digest = await this.#store.bringIn(file.path, {
      label: wanted.url,
      expected: wanted.sha256,
      check: (staged) => checkKind(wanted.kind, staged, wanted.url),
      signal,
    });
    await this.#store.remember(url.href, { sha256: digest.sha256, fingerprint: file.fingerprint });
    return digest;
  }

  async #download(url: URL, wanted: Wanted, signal: AbortSignal): Promise<FileDigest> {
    const staged = this.#store.stagingPath();
    const known = await this.#known(url);
    const { bavail, bsize } = await statfs(this.#store.path(""));
    try {
      let result: Downloaded;
      {
        await using handle = await createFile(staged, 0o600);
        result = await withinTime(this.#settings.timeoutMs, wanted.url, signal, (bounded) =>
          download(url, new SparseWriter(handle), {
            maxBytes: this.#settings.maxBytes,
            freeBytes: bavail * bsize,
            have: known,
            checkedLater: wanted.sha256 !== undefined,
            isInside: this.#settings.isInside,
            backoffMs: this.#settings.backoffMs,
            signal: bounded,
          }),
        );
      }
      if (result.unchanged) {
        if (known === undefined) throw new Error("unchanged against nothing");
        await rm(staged);
        return await this.#again(known, wanted);
      }
      const { sha256, size_bytes, etag, last_modified } = result;
      checkDigest(wanted.url, sha256, wanted.sha256);
      await checkKind(wanted.kind, staged, wanted.url);
      await this.#store.adopt(staged, sha256);
      await this.#store.remember(url.href, { sha256, etag, last_modified });
      return { sha256, size_bytes };
    } catch (error) {
      await rm(staged, { force: true });
      throw error;
    }
  }

  /** Checks what the store has anew against what is wanted this time: the digest or the kind may be another. */
  async #again(known: FileDigest, wanted: Wanted): Promise<FileDigest> {
    checkDigest(wanted.url, known.sha256, wanted.sha256);
    await checkKind(wanted.kind, this.#store.path(known.sha256), wanted.url);
    return { sha256: known.sha256, size_bytes: known.size_bytes };
  }
}
