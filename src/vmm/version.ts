/** A version as the programs print it: `Firecracker v1.17.0-dev`. */
export interface Version {
  readonly major: number;
  readonly minor: number;
  /** All of it, without the leading `v`. */
  readonly text: string;
}

/**
 * The oldest Firecracker that can be driven. 1.14 brought `PUT /serial`: without it a daemonized VMM's console
 * goes nowhere, and a guest that does not become ready could not be explained.
 */
export const OLDEST: Version = { major: 1, minor: 14, text: "1.14" };

/** From here on `PUT /serial` takes a rate limiter. */
export const SERIAL_RATE_LIMITER: Version = { major: 1, minor: 16, text: "1.16" };

/** The version in what `--version` printed, or undefined when there is none. */
export function parseVersion(output: string): Version | undefined {
  const match = /\bv?((\d{1,6})\.(\d{1,6})(?:\.\d{1,6})?(?:[-+][0-9A-Za-z.+-]{1,64})?)/.exec(output);
  const [, text, major, minor] = match ?? [];
  if (text === undefined) return undefined;
  return { major: Number(major), minor: Number(minor), text };
}

/** True when `version` is `wanted` or newer; a pre-release counts as its release. */
export function isAtLeast(version: Version, wanted: Version): boolean {
  return version.major > wanted.major || (version.major === wanted.major && version.minor >= wanted.minor);
}
