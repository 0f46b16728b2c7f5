import { randomBytes } from "node:crypto";
import { link, mkdir, readdir, readFile, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AppError, errnoOf } from "../contract/errors.ts";
import { ensureDirectory, exists, removeTree } from "../system/files.ts";
import { API_SOCKET } from "./socket.ts";
import type { JailFile } from "./types.ts";

/** `sockaddr_un` holds this many bytes, less the ending zero. */
const SOCKET_PATH_LIMIT = 107;
const ID_LENGTH = 10;
/** 32 letters, so that a random byte picks one without bias; the first is always a letter. */
const ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567";

/** One jail on the host: `<base>/<exec name>/<jail id>/root`, the layout that the jailer prescribes. */
export interface Jail {
  readonly id: string;
  /** Belongs to root; removing it removes the jail. */
  readonly directory: string;
  /** What the VMM sees as `/`. Belongs to the VMM's user once the jailer ran. */
  readonly root: string;
}

/**
 * Throws a plain Error when sockets of jails below `base` would have too long a path, with the VMM at `execPath`; both are
 * real paths. The daemon's own connections do not need a short one, but whoever debugs with curl does.
 */
export function refuseLongPath(base: string, execPath: string): void {
  const path = join(base, basename(execPath), "x".repeat(ID_LENGTH), "root", API_SOCKET);
  const excess = Buffer.byteLength(path) - SOCKET_PATH_LIMIT;
  if (excess > 0)
    throw new Error(
      `The root folder's path is ${excess} bytes too long: sockets under ${base} may have ${SOCKET_PATH_LIMIT} bytes in all.`,
    );
}

/** All jails of one daemon. */
export class Jails {
  /** What the jailer is given as its base folder. */
  readonly base: string;
  readonly #trash: string;

  constructor(rootDir: string) {
    this.base = join(rootDir, "jails");
    this.#trash = join(rootDir, "trash");
  }

  /** Makes the folders. Throws a plain Error when socket paths under this root would be too long for `execPath`. */
  async open(execPath: string): Promise<void> {
    await ensureDirectory(this.base);
    await ensureDirectory(this.#trash);
    refuseLongPath(await realpath(this.base), await realpath(execPath));
  }

  /** A new id: 50 random bits, never used before in practice. */
  newId(): string {
    return Array.from(randomBytes(ID_LENGTH), (byte, index) =>
      ID_LETTERS.charAt(byte % (index === 0 ? 26 : ID_LETTERS.length)),
    ).join("");
  }

  /** Where the jail `id` of the VMM at `execPath` is or will be: the jailer names the folder after the real file. */
  async locate(id: string, execPath: string): Promise<Jail> {
    checkId(id);
    return jailAt(join(this.base, basename(await realpath(execPath)), id));
  }

  /**
   * Makes the jail, root-owned, and hard-links `files` into it; wholly or not at all. The jailer gives the folders to the
   * VMM's user later. Throws `internal` when a file's name does not fit, EEXIST when the id was used, `disk_full`.
   */
  async make(jail: Jail, files: readonly JailFile[]): Promise<void> {
    checkNames(jail, files);
    await mkdir(dirname(jail.directory), { recursive: true, mode: 0o700 });
    // Not recursive: whose id this is, is decided here.
    await mkdir(jail.directory, { mode: 0o700 });
    try {
      await mkdir(jail.root, { mode: 0o700 });
      // Made here so that it can be watched before anything of the VMM runs.
      await mkdir(join(jail.root, "run"), { mode: 0o700 });
      for (const file of files) await link(file.source, join(jail.root, file.path));
    } catch (cause) {
      await this.remove(jail);
      throw cause;
    }
  }

  /** Every jail with this id, whichever VMM it was made for: the pair may have changed since. */
  async find(id: string): Promise<Jail[]> {
    checkId(id);
    const jails = (await this.#execFolders()).map((folder) => jailAt(join(folder, id)));
    const there = await Promise.all(jails.map(async ({ directory }) => await exists(directory)));
    return jails.filter((_, index) => there[index]);
  }

  /** The ids of all jails. */
  async list(): Promise<string[]> {
    const folders = await Promise.all((await this.#execFolders()).map(foldersIn));
    return [...new Set(folders.flat())];
  }

  /** Removes the jail; nothing may run in it any more. Missing is fine. */
  async remove(jail: Jail): Promise<void> {
    // Mounts of a jail live in a namespace of its own. If one ever shows here, deleting would go through it.
    const mounts = await mountsUnder(jail.directory);
    if (mounts.length > 0)
      throw new Error(
        `The jail ${jail.directory} is not removed: something is mounted on ${mounts.join(", ")}.`,
      );
    await removeTree(jail.directory, this.#trash);
  }

  async #execFolders(): Promise<string[]> {
    return (await foldersIn(this.base)).map((name) => join(this.base, name));
  }
}

/** Names of the folders in a folder, which may be missing. A file that somebody put there is no jail. */
async function foldersIn(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

function jailAt(directory: string): Jail {
  return { id: basename(directory), directory, root: join(directory, "root") };
}

/** An id becomes part of paths that are removed: nothing but a plain name may pass. */
function checkId(id: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9-]{0,63}$/.test(id))
    throw new AppError("internal", `${JSON.stringify(id)} is no jail id.`);
}

/** Names that the jailer makes itself: a file in their place would make it fail or, worse, be written to. */
function checkNames(jail: Jail, files: readonly JailFile[]): void {
  const exec = basename(dirname(jail.directory));
  const taken = new Set(["run", "dev", "usr", "old_root", exec, `${exec}.pid`]);
  for (const { path } of files) {
    const name = /^\/([A-Za-z0-9][A-Za-z0-9._-]*)$/.exec(path)?.[1];
    if (name === undefined || taken.has(name))
      throw new AppError("internal", `${JSON.stringify(path)} cannot be the name of a file in a jail.`);
    taken.add(name);
  }
}

/** Mount points at or under `directory` in the daemon's own mount namespace. */
async function mountsUnder(directory: string): Promise<string[]> {
  const text = await readFile("/proc/self/mountinfo", "utf8");
  return text
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .map((path) =>
      path.replaceAll(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    )
    .filter((path) => path === directory || path.startsWith(`${directory}/`));
}
