import { createReadStream, lstatSync, realpathSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf } from "../contract/errors.ts";
import { refuseLongPath } from "../vmm/jail.ts";
import { type CheckedPair, choosePair, type PairSources } from "../vmm/pair.ts";
import { type Finding, fail, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

export interface VmmLook {
  readonly findings: readonly Finding[];
  /** True when the pair is a real one, which needs KVM; undefined when there is none. */
  readonly isReal: boolean | undefined;
}

/** The VMM and the jailer that a start would take: whether they work, who may change them, and their seccomp filters. */
export async function vmmFindings(
  files: HostFiles,
  sources: PairSources,
  jailsDir: string,
): Promise<VmmLook> {
  let pair: CheckedPair;
  try {
    pair = await choosePair(sources);
    refuseLongPath(jailsDir, realpathSync(pair.firecrackerPath));
  } catch (error) {
    return { findings: [fail("vmm", messageOf(error))], isReal: undefined };
  }
  const { firecrackerPath, jailerPath, version, label, reason } = pair;
  const isReal = firecrackerPath !== sources.fallback.firecrackerPath;
  const said = `${label} ${version.text}: ${reason}`;
  if (!isReal) {
    return {
      findings: [
        warn(
          "vmm",
          `${said}; for production install Firecracker and its jailer, and name both by FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH`,
        ),
      ],
      isReal,
    };
  }
  return {
    findings: [
      ok("vmm", `${said}; its jailer is of the same release`),
      ...[firecrackerPath, jailerPath].map((path) => ownerFinding(path)),
      await seccompOfBinary(firecrackerPath),
      ...seccompOfRunning(files, jailsDir),
    ],
    isReal,
  };
}

/** The jailer runs as root and trusts its inputs: whoever can replace them is root. */
export function ownerFinding(path: string): Finding {
  for (let each = realpathSync(path); ; each = dirname(each)) {
    const { uid, mode } = lstatSync(each);
    if (uid !== 0 || (mode & 0o022) !== 0) {
      const why = uid === 0 ? `has mode ${(mode & 0o7777).toString(8)}` : `belongs to uid ${uid}`;
      return warn("vmm owner", `${path}: ${each} ${why}; it must be root's, and writable by root alone`);
    }
    if (each === "/") return ok("vmm owner", `${path} and the folders above it are root's alone`);
  }
}

/** Firecracker's default filters are part of its release builds, which are made with musl; a build with glibc has empty ones. */
async function seccompOfBinary(path: string): Promise<Finding> {
  if (!(await contains(path, "GLIBC_")))
    return ok("seccomp", "the VMM is built with musl, as releases are, which carry default filters");
  return warn(
    "seccomp",
    `${path} is built with glibc, and Firecracker has default filters only in its release builds, made with musl: take one of those`,
  );
}

/** True when the file holds these ASCII characters. Reads it in pieces. */
async function contains(path: string, text: string): Promise<boolean> {
  let before = "";
  for await (const chunk of createReadStream(path, { encoding: "latin1" })) {
    const piece = before + String(chunk);
    if (piece.includes(text)) return true;
    before = piece.slice(-text.length);
  }
  return false;
}

/** The proof, where machines run: the kernel's word on each thread of their VMMs, which have a jail as their root folder. */
export function seccompOfRunning(files: HostFiles, jailsDir: string): Finding[] {
  const jails = files
    .list(jailsDir)
    .flatMap((name) => files.list(`${jailsDir}/${name}`).map((id) => `${jailsDir}/${name}/${id}/root`));
  const roots = new Set(jails.map((path) => files.identity(path)).filter((found) => found !== undefined));
  const pids = files
    .list("/proc")
    .filter((name) => /^\d+$/.test(name) && roots.has(files.identity(`/proc/${name}/root`) ?? ""));
  if (pids.length === 0) return [];
  const without = pids.filter((pid) =>
    files
      .list(`/proc/${pid}/task`)
      .some((task) => /^Seccomp:\s*0$/m.test(files.text(`/proc/${pid}/task/${task}/status`) ?? "")),
  );
  if (without.length === 0)
    return [ok("seccomp", `every thread of the ${pids.length} VMMs that run is filtered`)];
  return [warn("seccomp", `VMMs with threads that nothing filters run here: pids ${without.join(", ")}`)];
}
