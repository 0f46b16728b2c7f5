import { accessSync, constants, realpathSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

/** The two programs under test. */
export interface Pair {
  firecracker: string;
  jailer: string;
  /** What the jailer calls the first folder of a jail: the file name of the executable. */
  execName: string;
}

function standin(name: string): string {
  return fileURLToPath(new URL(`../../../src/standin/bin/${name}`, import.meta.url));
}

/** The pair that the environment names, or the stand-ins. Throws if it names only one of the two. */
function choosePair(): Pair {
  const firecracker = process.env["FIRECRACKER_BINARY_PATH"];
  const jailer = process.env["JAILER_BINARY_PATH"];
  if ((firecracker === undefined) !== (jailer === undefined)) {
    throw new Error("FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH name a pair: set both or neither");
  }
  const chosen = {
    firecracker: firecracker ?? standin("firecracker-qemu"),
    jailer: jailer ?? standin("jailer-qemu"),
  };
  accessSync(chosen.firecracker, constants.X_OK);
  accessSync(chosen.jailer, constants.X_OK);
  // The jailer resolves links before it takes the name.
  return { ...chosen, execName: basename(realpathSync(chosen.firecracker)) };
}

export const pair: Pair = choosePair();
