import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { createStorage, type StorageOptions } from "../../../src/storage/storage.ts";
import type { Storage } from "../../../src/storage/types.ts";
import { silentLog } from "../../../src/system/log.ts";

export const sha256 = (bytes: Uint8Array | string): string =>
  createHash("sha256").update(bytes).digest("hex");

/** A folder that is gone after the test. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "storage-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes that look like a bzImage, and no two the same. */
export function fakeKernel(size = 9000): Buffer {
  const bytes = randomBytes(size);
  bytes.writeUInt16LE(0xaa55, 0x1fe);
  bytes.write("HdrS", 0x202, "latin1");
  return bytes;
}

/** Bytes that look like an ext4 filesystem: some data, a long hole, some data. */
export function fakeRootfs(size = 4 * 1024 * 1024): Buffer {
  const bytes = Buffer.alloc(size);
  randomBytes(64 * 1024).copy(bytes, 1024);
  bytes.writeUInt16LE(0xef53, 0x438);
  randomBytes(10_000).copy(bytes, size - 10_000);
  return bytes;
}

export interface ImageFiles {
  readonly kernel: Buffer;
  readonly rootfs: Buffer;
  readonly modules?: Buffer | undefined;
}

/** Writes an image as a build would. Returns what its files hold. */
export async function writeImage(
  imageDir: string,
  name: string,
  files: ImageFiles = { kernel: fakeKernel(), rootfs: fakeRootfs(), modules: randomBytes(1000) },
  change: object = {},
): Promise<ImageFiles> {
  const folder = join(imageDir, name);
  await mkdir(folder, { recursive: true });
  const described = async (file: string, bytes: Buffer): Promise<object> => {
    await writeFile(join(folder, file), bytes);
    return { file, sha256: sha256(bytes), size_bytes: bytes.length };
  };
  const manifest = {
    format: 1,
    name,
    architecture: "x86_64",
    default_user: "root",
    kernel: await described("vmlinuz", files.kernel),
    ...(files.modules === undefined ? {} : { modules: await described("modules.cpio", files.modules) }),
    rootfs: await described("rootfs.ext4", files.rootfs),
    ...change,
  };
  await writeFile(join(folder, "manifest.json"), JSON.stringify(manifest));
  return files;
}

/** Writes the initrd that all images share. */
export async function writeInitrd(imageDir: string, bytes: Buffer = randomBytes(700)): Promise<Buffer> {
  await mkdir(imageDir, { recursive: true });
  await writeFile(join(imageDir, "initrd.cpio"), bytes);
  const initrd = { file: "initrd.cpio", sha256: sha256(bytes), size_bytes: bytes.length };
  await writeFile(join(imageDir, "initrd.json"), JSON.stringify({ format: 1, initrd }));
  return bytes;
}

export interface Place {
  readonly root: string;
  readonly imageDir: string;
  readonly storage: Storage;
}

/** An open storage in a folder of its own, with an initrd. */
export async function openStorage(t: TestContext, options: Partial<StorageOptions> = {}): Promise<Place> {
  const folder = await temporaryFolder(t);
  const root = join(folder, "root");
  const imageDir = join(folder, "images");
  await writeInitrd(imageDir);
  const storage = createStorage({
    rootDir: root,
    imageDir,
    fileUrlDirs: [imageDir],
    cloneMode: "auto",
    log: silentLog,
    ...options,
  });
  await storage.open();
  return { root, imageDir, storage };
}
