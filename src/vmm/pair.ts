import { constants } from "node:fs";
import { access, readFile, realpath, stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { errnoOf, messageOf } from "../contract/errors.ts";
import { writeFileDurably } from "../system/files.ts";
import { run } from "../system/run.ts";
import { isAtLeast, OLDEST, parseSnapshotFormat, parseVersion, type Version } from "./version.ts";

/** A VMM and its jailer, and why they were taken. */
export interface Pair {
  readonly firecrackerPath: string;
  readonly jailerPath: string;
  /** What an operator calls it: `firecracker`. */
  readonly label: string;
  readonly reason: string;
}

export interface PairSources {
  /** What the operator named. If one is set, both must be: there is no silent fall-back. */
  readonly firecrackerPath?: string;
  readonly jailerPath?: string;
  /** Folders in which an installed `firecracker` and `jailer` are looked for. */
  readonly searchPath: readonly string[];
  /** Taken when nothing was named and no installed pair is known to boot Linux here. */
  readonly fallback: Pair;
  /** Where a boot of Linux is remembered. */
  readonly provenFile: string;
}

/** A pair whose programs were run: these are their versions. */
export interface CheckedPair extends Pair {
  readonly version: Version;
  /** The format of the state files that this VMM writes and reads. */
  readonly snapshotFormat: string;
}

/**
 * Chooses the pair by the rules of `PairSources` and checks it.
 * Throws a plain Error with a sentence for the operator.
 */
export async function choosePair(sources: PairSources): Promise<CheckedPair> {
  return await checkPair(named(sources) ?? (await installed(sources)) ?? sources.fallback);
}

function named({ firecrackerPath, jailerPath }: PairSources): Pair | undefined {
  if (firecrackerPath === undefined && jailerPath === undefined) return undefined;
  if (firecrackerPath === undefined || jailerPath === undefined) {
    const [set, missing] =
      firecrackerPath === undefined
        ? ["JAILER_BINARY_PATH", "FIRECRACKER_BINARY_PATH"]
        : ["FIRECRACKER_BINARY_PATH", "JAILER_BINARY_PATH"];
    throw new Error(`${set} is set but ${missing} is not: set both, or neither.`);
  }
  return {
    firecrackerPath,
    jailerPath,
    label: "firecracker",
    reason: "named by FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH",
  };
}

/** An installed pair, only if Linux has booted under it: that /dev/kvm exists proves nothing. */
async function installed(sources: PairSources): Promise<Pair | undefined> {
  const proven = await readProven(sources.provenFile);
  if (proven === undefined) return undefined;
  for (const directory of sources.searchPath) {
    const firecrackerPath = join(directory, "firecracker");
    const jailerPath = join(directory, "jailer");
    if (!(await isExecutable(firecrackerPath)) || !(await isExecutable(jailerPath))) continue;
    // A broken pair is no reason to refuse the start here: the operator did not ask for it.
    const version = await versionOf(firecrackerPath).catch(() => undefined);
    if (version?.text !== proven.version || (await realpath(firecrackerPath)) !== proven.firecracker_path)
      continue;
    return {
      firecrackerPath,
      jailerPath,
      label: "firecracker",
      reason: `installed in ${directory}, and Linux has booted under it on this host`,
    };
  }
  return undefined;
}

/** Checks that both programs can be run, agree on their version and are new enough. */
async function checkPair(pair: Pair): Promise<CheckedPair> {
  for (const path of [pair.firecrackerPath, pair.jailerPath]) {
    if (!isAbsolute(path)) throw new Error(`${path} (${pair.reason}) is not an absolute path.`);
    if (!(await isExecutable(path))) throw new Error(`${path} (${pair.reason}) is not an executable file.`);
  }
  const [version, jailer] = await Promise.all([versionOf(pair.firecrackerPath), versionOf(pair.jailerPath)]);
  if (!isAtLeast(version, OLDEST))
    throw new Error(
      `${pair.firecrackerPath} is version ${version.text}; ${OLDEST.text} or newer is needed: ${OLDEST.why}.`,
    );
  // Firecracker supports a VMM only with the jailer of its own release.
  if (jailer.major !== version.major || jailer.minor !== version.minor)
    throw new Error(
      `${pair.firecrackerPath} is version ${version.text} but ${pair.jailerPath} is ${jailer.text}: take both from one release.`,
    );
  return { ...pair, version, snapshotFormat: await snapshotFormatOf(pair.firecrackerPath) };
}

async function versionOf(path: string): Promise<Version> {
  return await printed(path, "--version", parseVersion);
}

async function snapshotFormatOf(path: string): Promise<string> {
  return await printed(path, "--snapshot-version", parseSnapshotFormat);
}

/** What `parse` finds in what the program at `path` prints when it is asked by `flag`. */
async function printed<T>(path: string, flag: string, parse: (output: string) => T | undefined): Promise<T> {
  let output: string;
  try {
    output = (await run([path, flag])).stdout;
  } catch (cause) {
    throw new Error(`${path} ${flag} does not work: ${messageOf(cause)}`, { cause });
  }
  const found = parse(output);
  if (found === undefined)
    throw new Error(`${path} ${flag} names no version: ${output.slice(0, 200).trim()}`);
  return found;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

interface Proven {
  readonly firecracker_path: string;
  readonly version: string;
}

/** Remembers that Linux has booted under this pair on this host. */
export async function writeProven(file: string, pair: CheckedPair): Promise<void> {
  const proven: Proven = {
    firecracker_path: await realpath(pair.firecrackerPath),
    version: pair.version.text,
  };
  const before = await readProven(file);
  if (before?.firecracker_path === proven.firecracker_path && before.version === proven.version) return;
  await writeFileDurably(file, `${JSON.stringify(proven)}\n`);
}

/** What was remembered. A file that cannot be understood is no proof. */
async function readProven(file: string): Promise<Proven | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(file, "utf8"));
    if (typeof value !== "object" || value === null) return undefined;
    if (!("firecracker_path" in value) || typeof value.firecracker_path !== "string") return undefined;
    if (!("version" in value) || typeof value.version !== "string") return undefined;
    return { firecracker_path: value.firecracker_path, version: value.version };
  } catch (error) {
    if (error instanceof SyntaxError || errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
