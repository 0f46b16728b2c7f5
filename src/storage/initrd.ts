import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errnoOf } from "../contract/errors.ts";
import { sha256Of } from "./digest.ts";
import { type DigestStore, checkDigest } from "./digest-store.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { type ManifestFile, readInitrdManifest } from "./manifest.ts";

/** The kernel unpacks archives one behind the other, with zeros between them. */
const ALIGNMENT = 512;
/** An initrd is held in memory while it is put together. */
const LARGEST_BYTES = 256 * 1024 * 1024;

function padded(archive: Uint8Array): Uint8Array[] {
  const missing = (ALIGNMENT - (archive.length % ALIGNMENT)) % ALIGNMENT;
  return [archive, new Uint8Array(missing)];
}

async function readChecked(folder: string, file: ManifestFile): Promise<Uint8Array> {
  const path = join(folder, file.file);
  if (file.size_bytes > LARGEST_BYTES)
    throw new AppError("image_invalid", `${path} is too large for an initrd.`);
  try {
    const bytes = await readFile(path);
    checkDigest(path, sha256Of(bytes), file.sha256);
    return bytes;
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new AppError("image_invalid", `${path} is missing. Build the images anew with "make images".`, {
      cause: error,
    });
  }
}

/** Makes the initrds that VMMs are given: the one that all images share, with an image's modules behind it. */
export class Initrds {
  readonly #store: DigestStore;
  readonly #imageDir: string;
  readonly #made = new Map<string, string>();

  constructor(store: DigestStore, imageDir: string) {
    this.#store = store;
    this.#imageDir = imageDir;
  }

  /** Files whose change makes another initrd. */
  get sources(): readonly string[] {
    return [join(this.#imageDir, "initrd.json"), join(this.#imageDir, "initrd.cpio")];
  }

  /**
   * Puts the initrd with `modules` (a file in `folder`), or without any, into the store and returns its digest.
   * Throws `image_not_found` when no initrd was built, `image_invalid`.
   */
  async make(folder: string, modules: ManifestFile | undefined): Promise<string> {
    const seen = await Promise.all(this.sources.map(fingerprintOf));
    const key = [...seen, modules?.sha256].join(" ");
    const made = this.#made.get(key);
    if (made !== undefined && (await this.#store.sizeOf(made)) !== undefined) return made;
    const initrd = await readInitrdManifest(this.#imageDir);
    const archives = [await readChecked(this.#imageDir, initrd)];
    if (modules !== undefined) archives.push(await readChecked(folder, modules));
    const sha256 = await this.#store.putBytes(Buffer.concat(archives.flatMap(padded)));
    this.#made.set(key, sha256);
    return sha256;
  }
}
