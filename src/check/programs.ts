import { type Finding, fail, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

const FOLDERS = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/** Programs by the package that brings them. */
const DAEMON = { ip: "iproute2", nft: "nftables", cp: "coreutils" } as const;
const STAND_INS = {
  "qemu-system-x86_64": "qemu-system-x86",
  unshare: "util-linux",
  setpriv: "util-linux",
  mkfifo: "coreutils",
} as const;

/** What the unit sets. A machine needs a connection to its VMM, a watch and, now and then, one to its guest. */
const MANY_FILES = 65_536;

/** Who runs this, and with what. `isReal`: guests run in Firecracker, not in the stand-ins. */
export function programFindings(files: HostFiles, uid: number | undefined, isReal: boolean): Finding[] {
  return [
    uid === 0 ? ok("user", "root") : fail("user", "root is needed to run guests: use sudo"),
    programs(files, isReal ? DAEMON : { ...DAEMON, ...STAND_INS }),
    openFiles(files),
  ];
}

function programs(files: HostFiles, wanted: Readonly<Record<string, string>>): Finding {
  const missing = Object.entries(wanted).filter(
    ([name]) => !FOLDERS.some((folder) => files.exists(`${folder}/${name}`)),
  );
  if (missing.length === 0) return ok("programs", Object.keys(wanted).join(", "));
  return fail(
    "programs",
    `missing: ${missing.map(([name, from]) => `${name} (package ${from})`).join(", ")}`,
  );
}

function openFiles(files: HostFiles): Finding {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(files.text("/proc/self/limits") ?? "")?.[1] ?? "0";
  const limit = hard === "unlimited" ? Number.POSITIVE_INFINITY : Number(hard);
  if (limit >= MANY_FILES) return ok("open files", `at most ${hard}`);
  return warn(
    "open files",
    `at most ${hard}, of which each machine costs the daemon a few: raise it (ulimit -Hn, LimitNOFILE= of the unit) to ${MANY_FILES}`,
  );
}
