import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** Where the images under test are. */
export const IMAGE_DIR = process.env["IMAGE_DIR"] ?? "/var/cache/computer-host/images";

interface ImageFile {
  readonly file: string;
  readonly sha256: string;
  readonly size_bytes: number;
}

export interface ImageManifest {
  readonly name: string;
  readonly default_user: string;
  readonly kernel: ImageFile;
  readonly kernel_elf: ImageFile;
  readonly modules: ImageFile;
  readonly rootfs: ImageFile;
}

/** The manifest of a built image. Throws when it is not there: `make images` builds it. */
export async function readManifest(name: string): Promise<ImageManifest> {
  return JSON.parse(await readFile(join(IMAGE_DIR, name, "manifest.json"), "utf8")) as ImageManifest;
}
