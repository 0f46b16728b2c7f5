/** A version as the programs print it: `Firecracker v1.17.0-dev`. */
export interface Version {
  readonly major: number;
  readonly minor: number;
  /** All of it, without the leading `v`. */
  readonly text: string;
}

/** The oldest Firecracker that can be driven, and why no older one is. */
export const OLDEST: Version & { readonly why: string } = {
  major: 1,
  minor: 15,
  text: "1.15",
  why: "older ones damage diff snapshots of guests with more than 3 GiB of memory",
};

/** From here on `PUT /serial` takes a rate limiter. */
export const SERIAL_RATE_LIMITER: Version = { major: 1, minor: 16, text: "1.16" };

/** From here on a kernel may be a bzImage; before, only an uncompressed ELF file (vmlinux). */
export const BZIMAGE_KERNELS: Version = { major: 1, minor: 17, text: "1.17" };

/** The version in what `--version` printed, or undefined when there is none. */
export function parseVersion(output: string): Version | undefined {
  const match = /\bv?((\d{1,6})\.(\d{1,6})(?:\.\d{1,6})?(?:[-+][0-9A-Za-z.+-]{1,64})?)/.exec(output);
  const [, text, major, minor] = match ?? [];
  if (text === undefined) return undefined;
  return { major: Number(major), minor: Number(minor), text };
}

/**
 * The format in what `--snapshot-version` printed, without the leading `v`, or undefined when there is none.
 * It stands on a line of its own; Firecracker's log goes to the same output.
 */
export function parseSnapshotFormat(output: string): string | undefined {
  return /^v?(\d{1,6}\.\d{1,6}\.\d{1,6}(?:[-+][0-9A-Za-z.+-]{1,64})?)\s*$/m.exec(output)?.[1];
}

/** True when `version` is `wanted` or newer; a pre-release counts as its release. */
export function isAtLeast(version: Version, wanted: Version): boolean {
  return version.major > wanted.major || (version.major === wanted.major && version.minor >= wanted.minor);
}
