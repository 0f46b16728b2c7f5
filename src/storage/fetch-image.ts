import type { Artifact } from "../contract/machine.ts";
import type { ImageRef } from "../model/records.ts";
import type { Artifacts } from "./artifacts.ts";
import { storageError } from "./errors.ts";
import type { Initrds } from "./initrd.ts";
import type { LocalImages } from "./local-image.ts";

/** Images that come without a manifest are logged in to as root. */
const DEFAULT_USER = "root";

/** What images of URLs are made with. */
export interface ImageFetching {
  readonly artifacts: Artifacts;
  readonly images: LocalImages;
  readonly initrds: Initrds;
  /** Where the initrd that all images share is. */
  readonly imageDir: string;
}

/**
 * The image of a kernel and a root disk that a client names by URL, with our initrd and, where the kernel is one of a local
 * image, its modules. Throws as `Storage.fetchImage` does.
 */
export async function fetchImage(
  { artifacts, images, initrds, imageDir }: ImageFetching,
  { kernel_image_url, rootfs_url, kernel_sha256, rootfs_sha256 }: Artifact,
  signal?: AbortSignal,
): Promise<ImageRef> {
  // When one of the two fails, the other is broken off.
  const failed = new AbortController();
  const either = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  const fetches = [
    artifacts.get({ kind: "kernel", url: kernel_image_url, sha256: kernel_sha256 }, either),
    artifacts.get({ kind: "rootfs", url: rootfs_url, sha256: rootfs_sha256 }, either),
  ] as const;
  try {
    const [kernel, rootfs] = await Promise.all(fetches);
    const drivers = await images.modulesFor(kernel.sha256);
    const initrd_sha256 = await initrds.make(drivers?.folder ?? imageDir, drivers?.modules);
    return {
      kernel_sha256: kernel.sha256,
      initrd_sha256,
      rootfs_sha256: rootfs.sha256,
      rootfs_size_bytes: rootfs.size_bytes,
      kernel_image_url,
      rootfs_url,
      default_user: DEFAULT_USER,
    };
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled(fetches);
    signal?.throwIfAborted();
    throw storageError(error, "Fetching the artifact");
  }
}
