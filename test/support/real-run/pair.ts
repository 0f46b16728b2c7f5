import { accessSync, closeSync, constants, openSync, readSync } from "node:fs";

export interface RealPair {
  readonly firecracker: string;
  readonly jailer: string;
}

/** Why a test of the real pair is skipped elsewhere; test/skips.txt allows it. */
export const NEEDS_REAL_PAIR =
  "needs a real Firecracker pair: set FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH";

/**
 * The real pair that the environment names, or undefined where it names none or the stand-ins, which are scripts.
 * Throws when it names only one of the two, or a file that cannot be executed.
 */
export function realPair(env: NodeJS.ProcessEnv = process.env): RealPair | undefined {
  const firecracker = env["FIRECRACKER_BINARY_PATH"];
  const jailer = env["JAILER_BINARY_PATH"];
  if (firecracker === undefined && jailer === undefined) return undefined;
  if (firecracker === undefined || jailer === undefined)
    throw new Error("FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH name a pair: set both or neither");
  for (const path of [firecracker, jailer]) accessSync(path, constants.X_OK);
  return isElf(firecracker) && isElf(jailer) ? { firecracker, jailer } : undefined;
}

function isElf(path: string): boolean {
  const fd = openSync(path, "r");
  try {
    const magic = Buffer.alloc(4);
    return readSync(fd, magic) === magic.length && magic.toString("latin1") === "\x7fELF";
  } finally {
    closeSync(fd);
  }
}
