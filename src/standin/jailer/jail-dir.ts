/** The jail's folder on the host, up to the point where only a process inside a mount namespace can go on. */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import { OsError } from "../shared/os-error.ts";
import { jailerOsError, JailerError, pathError } from "./jailer-error.ts";

const EEXIST = 17;
const ENOTDIR = 20;

/** The folders that the jailed uid owns, as in the real jail. */
const OWNED = ["", "dev", "dev/net", "run"];

/** Mount points for the system's programs, for /proc, and for Node and the stand-in's code. */
export const STANDIN_DIR = "standin";
const MOUNT_POINTS = ["usr", "proc", STANDIN_DIR, `${STANDIN_DIR}/code`];

/** Where dynamic linker, libraries and shell are looked for; on a merged system all of it lies in /usr. */
const LINKS = ["bin", "lib", "lib64"];

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Makes `<base>/<exec>/<id>/root`; it may be there already, with files in it. */
export function makeRootDir(rootDir: string): void {
  makeDir(rootDir, rootDir);
}

/**
 * Copies the program into the jail and gives it to the jailed uid. A symbolic link or a hard link in its place is
 * refused: root would write through it.
 */
export function copyExecFile(execFile: string, rootDir: string, execName: string, owner: Owner): void {
  const target = join(rootDir, execName);
  const source = openOr(execFile, constants.O_RDONLY);
  try {
    const mode = fstatSync(source).mode & 0o7777;
    const copy = openOr(target, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, mode);
    try {
      if (fstatSync(copy).nlink > 1) {
        throw new JailerError(`Detected hard link at: ${target}`, `HardLink(${JSON.stringify(target)})`);
      }
      fchownSync(copy, owner.uid, owner.gid);
      writeSync(copy, readFileSync(source));
    } finally {
      closeSync(copy);
    }
  } finally {
    closeSync(source);
  }
}

/** Makes the jail's folders with the owners and modes that the real jailer gives them. */
export function makeFolders(rootDir: string, owner: Owner): void {
  for (const name of OWNED) {
    const path = join(rootDir, name);
    makeDir(path, `/${name}`);
    chmodSync(path, 0o700);
    chownSync(path, owner.uid, owner.gid);
  }
  for (const name of MOUNT_POINTS) makeDir(join(rootDir, name), `/${name}`);
  for (const name of LINKS) linkToUsr(rootDir, name);
  closeSync(openSync(join(rootDir, STANDIN_DIR, "node"), constants.O_WRONLY | constants.O_CREAT, 0o755));
}

/**
 * Refuses a jail whose devices are there already: an id can't be used a second time until its folder is gone.
 * The nodes themselves are made later, from inside.
 */
export function refuseUsedJail(rootDir: string, devices: readonly string[]): void {
  for (const device of devices) {
    if (lstatSync(join(rootDir, device), { throwIfNoEntry: false }) === undefined) continue;
    throw jailerOsError(
      new OsError(EEXIST),
      (text) => `Failed to create ${device} via mknod inside the jail: ${text}`,
      (debug) => `MknodDev(${debug}, ${JSON.stringify(device)})`,
    );
  }
}

/** The minor number of /dev/userfaultfd from the text of /proc/misc, or undefined where there is none. */
export function userfaultfdMinor(misc: string): number | undefined {
  for (const line of misc.split("\n")) {
    const [minor, name] = line.trim().split(/\s+/);
    if (name === "userfaultfd") return Number(minor);
  }
  return undefined;
}

/** Makes a folder unless it is there; what is there must be a folder and no link to one. */
function makeDir(path: string, shown: string): void {
  try {
    mkdirSync(path, { recursive: true });
    if (!lstatSync(path).isDirectory()) throw new OsError(ENOTDIR);
  } catch (cause) {
    throw pathError("CreateDir", "Failed to create directory", shown, cause);
  }
}

/** A host that keeps /lib apart from /usr/lib is not supported: only /usr is bound into the jail. */
function linkToUsr(rootDir: string, name: string): void {
  const target = `usr/${name}`;
  try {
    symlinkSync(target, join(rootDir, name));
  } catch (cause) {
    const present = lstatSync(join(rootDir, name), { throwIfNoEntry: false });
    if (present?.isSymbolicLink() === true && readlinkSync(join(rootDir, name)) === target) return;
    throw pathError("CreateDir", "Failed to create directory", `/${name}`, cause);
  }
}

function openOr(path: string, flags: number, mode?: number): number {
  try {
    return openSync(path, flags, mode);
  } catch (cause) {
    throw pathError("Open", "Failed to open", path, cause);
  }
}
