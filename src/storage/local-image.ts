import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { AppError, errnoOf } from "../contract/errors.ts";
import { isId } from "../contract/ids.ts";
import type { ImageRef } from "../model/records.ts";
import type { DigestStore } from "./digest-store.ts";
import { type FileKind, checkKind } from "./file-kind.ts";
import { fingerprintOf } from "./fingerprint.ts";
import type { Initrds } from "./initrd.ts";
import { type ManifestFile, readManifest } from "./manifest.ts";
import { SharedWork } from "./shared-work.ts";

const NoteSchema = Type.Object({
  /** Path and fingerprint of each file that the image was made from. */
  sources: Type.Array(Type.Tuple([Type.String(), Type.String()])),
  image: Type.Object({
    name: Type.String(),
    kernel_sha256: Type.String(),
    initrd_sha256: Type.String(),
    rootfs_sha256: Type.String(),
    rootfs_size_bytes: Type.Integer(),
    kernel_image_url: Type.String(),
    rootfs_url: Type.String(),
    default_user: Type.String(),
  }),
});
const note = Compile(NoteSchema);

/** Images that were built or put into the image folder, imported into the store by digest. */
export class LocalImages {
  readonly #imageDir: string;
  readonly #store: DigestStore;
  readonly #initrds: Initrds;
  readonly #imports = new SharedWork<ImageRef>();
  readonly #notes = new Map<string, unknown>();

  constructor(imageDir: string, store: DigestStore, initrds: Initrds) {
    this.#imageDir = imageDir;
    this.#store = store;
    this.#initrds = initrds;
  }

  /**
   * The image `name`. The first call copies and checks it; later ones only look whether its files are the same.
   * Throws `image_not_found`, `image_invalid`, `disk_full`.
   */
  async get(name: string, signal?: AbortSignal): Promise<ImageRef> {
    if (!isId(name))
      throw new AppError("image_not_found", `${JSON.stringify(name)} is not a name of an image.`);
    return (
      (await this.#known(name)) ?? this.#imports.run(name, (shared) => this.#import(name, shared), signal)
    );
  }

  /**
   * The folder and modules of a local image that has exactly this kernel, so that a client who names the kernel by URL
   * gets the drivers that it boots with. Undefined for a kernel that no local image knows.
   */
  async modulesFor(kernelSha256: string): Promise<{ folder: string; modules: ManifestFile } | undefined> {
    const names = (await readdir(this.#imageDir).catch(() => [])).filter(isId).sort();
    for (const name of names) {
      const manifest = await readManifest(this.#imageDir, name).catch(() => undefined);
      if (manifest?.modules === undefined) continue;
      if (![manifest.kernel.sha256, manifest.kernel_elf?.sha256].includes(kernelSha256)) continue;
      return { folder: join(this.#imageDir, name), modules: manifest.modules };
    }
    return undefined;
  }

  /** The image as it was imported before, if nothing of it has changed since and the store still has it. */
  async #known(name: string): Promise<ImageRef | undefined> {
    const known = this.#notes.get(name) ?? (await this.#store.recall(`image ${name}`));
    if (!note.Check(known)) return undefined;
    const same = await Promise.all(
      known.sources.map(async ([path, seen]) => (await fingerprintOf(path)) === seen),
    );
    const { kernel_sha256, initrd_sha256, rootfs_sha256 } = known.image;
    const sizes = await Promise.all(
      [kernel_sha256, initrd_sha256, rootfs_sha256].map((sha256) => this.#store.sizeOf(sha256)),
    );
    if (same.includes(false) || sizes.includes(undefined) || sizes[2] !== known.image.rootfs_size_bytes)
      return undefined;
    this.#notes.set(name, known);
    return known.image;
  }

  async #import(name: string, signal: AbortSignal): Promise<ImageRef> {
    const folder = join(this.#imageDir, name);
    const manifestPath = join(folder, "manifest.json");
    // Fingerprints are taken first: what changes while we read is seen as changed at the next call.
    const manifestSeen = await fingerprintOf(manifestPath);
    const manifest = await readManifest(this.#imageDir, name);
    const files = [
      manifest.kernel,
      manifest.rootfs,
      ...(manifest.modules === undefined ? [] : [manifest.modules]),
    ];
    const paths = [...files.map((file) => join(folder, file.file)), ...this.#initrds.sources];
    const seen = await Promise.all(
      paths.map(async (path) => [path, (await fingerprintOf(path)) ?? ""] as const),
    );
    await this.#bringIn("kernel", folder, manifest.kernel, signal);
    await this.#bringIn("rootfs", folder, manifest.rootfs, signal);
    const image = {
      name,
      kernel_sha256: manifest.kernel.sha256,
      initrd_sha256: await this.#initrds.make(folder, manifest.modules),
      rootfs_sha256: manifest.rootfs.sha256,
      rootfs_size_bytes: manifest.rootfs.size_bytes,
      kernel_image_url: pathToFileURL(join(folder, manifest.kernel.file)).href,
      rootfs_url: pathToFileURL(join(folder, manifest.rootfs.file)).href,
      default_user: manifest.default_user,
    };
    const known = { sources: [[manifestPath, manifestSeen ?? ""], ...seen], image };
    await this.#store.remember(`image ${name}`, known);
    this.#notes.set(name, known);
    return image;
  }

  async #bringIn(kind: FileKind, folder: string, file: ManifestFile, signal: AbortSignal): Promise<void> {
    if ((await this.#store.sizeOf(file.sha256)) === file.size_bytes) return;
    const path = join(folder, file.file);
    try {
      await this.#store.bringIn(path, {
        label: path,
        expected: file.sha256,
        check: (staged) => checkKind(kind, staged, path),
        signal,
      });
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw new AppError("image_invalid", `${path} is missing. Build the images anew with "make images".`, {
        cause: error,
      });
    }
  }
}
