import { randomBytes } from "node:crypto";
import { lstat, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errnoOf } from "../contract/errors.ts";
import { syncDirectory, writeFileDurably } from "../system/files.ts";
import type { Cloner } from "./clone.ts";
import { type FileDigest, digestFile, sha256Of } from "./digest.ts";
import type { Layout } from "./layout.ts";
import { createFile, setOwner, syncFile } from "./owned-file.ts";

/** The files of all images, each under its SHA-256: whole, checked, durable and never changed, or not there. */
export class DigestStore {
  readonly #layout: Layout;
  readonly #cloner: Cloner;

  constructor(layout: Layout, cloner: Cloner) {
    this.#layout = layout;
    this.#cloner = cloner;
  }

  /** Where the file with this digest lies, if the store has it. */
  path(sha256: string): string {
    return join(this.#layout.images, sha256);
  }

  /** Length of the file with this digest in bytes, or undefined when the store does not have it. */
  async sizeOf(sha256: string): Promise<number | undefined> {
    try {
      const stats = await lstat(this.path(sha256));
      return stats.isFile() ? stats.size : undefined;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** A new path for a file that is being made. */
  stagingPath(): string {
    return join(this.#layout.staging, `file-${randomBytes(8).toString("hex")}`);
  }

  /** Puts a staged file whose digest is known into the store; afterwards nothing is at its staging path. */
  async adopt(staged: string, sha256: string): Promise<void> {
    if ((await this.sizeOf(sha256)) !== undefined) {
      await rm(staged);
      return;
    }
    await setOwner(staged, 0, 0, 0o444);
    // The name must never come back from power loss without the content.
    await syncFile(staged);
    await rename(staged, this.path(sha256));
    await syncDirectory(this.#layout.images);
  }

  /**
   * Copies `source` into the store (by reference where that works) and returns its digest.
   * What is hashed is the copy, which nobody else can change. `check` looks at it before it gets its name.
   * Throws `image_invalid` when it is not `expected`.
   */
  async bringIn(
    source: string,
    how: {
      readonly label: string;
      readonly expected?: string | undefined;
      readonly check?: (path: string) => Promise<void>;
      readonly signal?: AbortSignal;
    },
  ): Promise<FileDigest> {
    if (!(await stat(source)).isFile()) {
      throw new AppError("image_invalid", `${how.label} is not a regular file.`);
    }
    const staged = this.stagingPath();
    try {
      await this.#cloner.bringIn(source, staged, how.signal);
      const digest = await digestFile(staged, how.signal);
      checkDigest(how.label, digest.sha256, how.expected);
      await how.check?.(staged);
      await this.adopt(staged, digest.sha256);
      return digest;
    } catch (error) {
      await rm(staged, { force: true });
      throw error;
    }
  }

  /** Puts bytes into the store and returns their digest. */
  async putBytes(bytes: Uint8Array): Promise<string> {
    const sha256 = sha256Of(bytes);
    if ((await this.sizeOf(sha256)) !== undefined) return sha256;
    const staged = this.stagingPath();
    try {
      {
        await using handle = await createFile(staged, 0o600);
        await handle.writeFile(bytes);
      }
      await this.adopt(staged, sha256);
      return sha256;
    } catch (error) {
      await rm(staged, { force: true });
      throw error;
    }
  }

  /** What was remembered under `key`, or undefined; a broken note is as good as none. */
  async recall(key: string): Promise<unknown> {
    try {
      return JSON.parse(await readFile(this.#notePath(key), "utf8"));
    } catch {
      return undefined;
    }
  }

  /** Keeps a small note under `key`, across restarts too. */
  async remember(key: string, note: object): Promise<void> {
    await writeFileDurably(this.#notePath(key), JSON.stringify(note));
  }

  #notePath(key: string): string {
    return join(this.#layout.index, `${sha256Of(key)}.json`);
  }
}

/** Throws `image_invalid` when `actual` is not the digest that was promised. */
export function checkDigest(label: string, actual: string, expected: string | undefined): void {
  if (expected === undefined || actual === expected) return;
  throw new AppError("image_invalid", `${label} has the SHA-256 ${actual}, not ${expected} as it should.`, {
    details: { sha256: actual, expected_sha256: expected },
  });
}
