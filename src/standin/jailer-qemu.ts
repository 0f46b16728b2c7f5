/**
 * A stand-in for Firecracker's jailer, for hosts where Firecracker itself can't run: the same command line, the
 * same folder, device nodes, cgroups, namespaces and refusals, around a Firecracker that is really QEMU.
 */
import { closeSync, constants, openSync, readdirSync, readFileSync, statfsSync } from "node:fs";

import { chooseAccelerator } from "./shared/accelerator.ts";
import { JAILER_ARGUMENTS } from "./jailer/arguments.ts";
import { entryCommand } from "./jailer/enter.ts";
import {
  copyExecFile,
  makeFolders,
  makeRootDir,
  refuseUsedJail,
  userfaultfdMinor,
} from "./jailer/jail-dir.ts";
import { jailerOsError, JailerError, pathError } from "./jailer/jailer-error.ts";
import { type JailOptions, readOptions } from "./jailer/options.ts";
import { ArgumentError, type Arguments, formatHelp, parseArguments } from "./shared/arguments.ts";
import { OsError } from "./shared/os-error.ts";
import { VERSION } from "./shared/version.ts";

const EINVAL = 22;
const NSFS_MAGIC = 0x6e736673;
const DEVICES = ["/dev/net/tun", "/dev/kvm"];

function main(): void {
  const startUs = process.hrtime.bigint() / 1000n;
  closeInheritedFiles();
  const args = parse(process.argv.slice(2));
  if (args.flag("help")) {
    console.log(`Jailer v${VERSION}\n\n${formatHelp(JAILER_ARGUMENTS)}\n`);
    console.log("Any arguments after the -- separator will be supplied to the jailed binary.\n");
    return;
  }
  if (args.flag("version")) {
    console.log(`Jailer v${VERSION}\n`);
    return;
  }
  jail(readOptions(args), startUs);
}

/** Makes the jail and turns this process into the VMM inside it. Returns only by throwing. */
function jail(options: JailOptions, startUs: bigint): void {
  // The VMM's user passes through folders that are root's, whatever the caller's umask hides from others.
  process.umask(0o022);
  makeRootDir(options.rootDir);
  copyExecFile(options.execFile, options.rootDir, options.execName, options);
  if (options.netns !== undefined) checkNetns(options.netns);
  options.cgroups?.apply();
  makeFolders(options.rootDir, options);
  const uffdMinor = userfaultfdMinor(readFileSync("/proc/misc", "utf8"));
  refuseUsedJail(options.rootDir, uffdMinor === undefined ? DEVICES : [...DEVICES, "/dev/userfaultfd"]);

  const cpuUs = Math.round(process.cpuUsage().user + process.cpuUsage().system);
  const start = ["--start-time-us", startUs, "--start-time-cpu-us", cpuUs, "--parent-cpu-time-us", cpuUs];
  const command = entryCommand({
    options,
    nodeFile: process.execPath,
    codeDir: import.meta.dirname,
    accelerator: chooseAccelerator(options.rootDir, process.env["STANDIN_ACCELERATOR"]),
    uffdMinor,
    isSessionLeader: leadsSession(),
    programArguments: ["--id", options.id, ...start.map(String), ...options.extra],
  });
  if (process.execve === undefined) throw new Error("this Node has no process.execve");
  process.execve(command.argv[0] ?? "", [...command.argv], { ...command.env });
}

function parse(argv: readonly string[]): Arguments {
  try {
    return parseArguments(JAILER_ARGUMENTS, argv);
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    throw new JailerError(`Failed to parse arguments: ${error.message}`, `ArgumentParsing(${error.debug})`);
  }
}

/** nsenter would only say that it failed; these are the real jailer's words. */
function checkNetns(path: string): void {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY);
  } catch (cause) {
    throw pathError("FileOpen", "Failed to open file", path, cause);
  }
  closeSync(fd);
  if (statfsSync(path).type !== NSFS_MAGIC) {
    throw jailerOsError(
      new OsError(EINVAL),
      (text) => `Failed to join network namespace: netns: ${text}`,
      (debug) => `SetNetNs(${debug})`,
    );
  }
}

/** Whatever the caller left open must not reach the jail. Node's own files close themselves at exec. */
function closeInheritedFiles(): void {
  const closeOnExec = 0o2000000;
  for (const name of readdirSync("/proc/self/fd")) {
    const fd = Number(name);
    if (fd <= 2) continue;
    try {
      const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1];
      if (flags !== undefined && (Number.parseInt(flags, 8) & closeOnExec) === 0) closeSync(fd);
    } catch {
      // The descriptor that read this very folder is gone by now.
    }
  }
}

/** Field 6 of /proc/self/stat is the session. The name before it may hold spaces, but ends in the last `)`. */
function leadsSession(): boolean {
  const stat = readFileSync("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[3]) === process.pid;
}

try {
  main();
} catch (error) {
  if (!(error instanceof JailerError)) throw error;
  console.error(`${error.message}\nError: ${error.debug}`);
  process.exitCode = 1;
}
