import { chmod, link, lstat, mkdir, readFile, readdir, realpath, rm, writeFile } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { messageOf } from "../contract/errors.ts";
import { removeTrash, syncDirectory } from "../system/files.ts";
import { reflink } from "./clone.ts";
import type { Layout } from "./layout.ts";
import type { CloneMode } from "./types.ts";

interface Mount {
  readonly point: string;
  readonly options: readonly string[];
}

/** A Unix socket's path may have 107 bytes, and the daemon's own lies directly in the root. */
const LONGEST_ROOT = 107 - "/firecracker-host.sock".length;

/** The mounts of /proc/self/mountinfo, in its order. Spaces and the like in names are written in octal there. */
export function parseMountinfo(text: string): Mount[] {
  return text
    .split("\n")
    .map((line) => line.split(" "))
    .flatMap(([, , , , point, options]) =>
      point === undefined || options === undefined
        ? []
        : [
            {
              point: point.replace(/\\([0-7]{3})/g, (_, octal: string) =>
                String.fromCharCode(Number.parseInt(octal, 8)),
              ),
              options: options.split(","),
            },
          ],
    );
}

function isWithin(path: string, point: string): boolean {
  return point === "/" || path === point || path.startsWith(`${point}/`);
}

/**
 * Says why `root` cannot be used under these mounts: mounted nodev (a jail has device nodes) or noexec (a jail holds the
 * VMM's executable), or with a mount on one of `folders`, across which files cannot be hard-linked. Undefined when it can.
 */
export function mountProblem(
  mountinfo: string,
  root: string,
  folders: readonly string[],
): string | undefined {
  const mounts = parseMountinfo(mountinfo);
  const inner = mounts.find(
    ({ point }) =>
      point !== root && folders.some((folder) => isWithin(folder, point)) && isWithin(point, root),
  );
  if (inner !== undefined) {
    return `${inner.point} is a mount of its own, but all of ${root} must lie on one filesystem; unmount it`;
  }
  // Of mounts on one point the last is on top.
  let mount: Mount | undefined;
  for (const each of mounts) {
    if (isWithin(root, each.point) && each.point.length >= (mount?.point.length ?? 0)) mount = each;
  }
  const bad = mount?.options.find((option) => option === "nodev" || option === "noexec" || option === "ro");
  if (mount === undefined || bad === undefined) return undefined;
  return `${root} lies on ${mount.point}, which is mounted ${bad}; jails need device nodes and executables, so mount it without, or set FIRECRACKER_HOST_ROOT_DIR to another place`;
}

async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const stats = await lstat(path);
  if (!stats.isDirectory()) throw new Error(`${path} is not a folder`);
  if (process.getuid?.() === 0 && stats.uid !== 0)
    throw new Error(`${path} belongs to uid ${stats.uid}, not to root`);
  await chmod(path, 0o700);
}

async function empty(folder: string): Promise<void> {
  for (const name of await readdir(folder)) await removeTrash(join(folder, name), folder);
}

/** Tries by doing: a file in staging is hard-linked to where files will be linked, and cloned. */
async function probe(layout: Layout): Promise<CloneMode> {
  const source = join(layout.staging, "probe");
  // Longer than a block, and not a multiple of one: that is what real files are.
  await writeFile(source, Buffer.alloc(70_000, 1), { flag: "wx", mode: 0o600 });
  for (const folder of [layout.images, layout.machines, layout.snapshots, layout.trash]) {
    const name = join(folder, ".probe");
    await rm(name, { force: true });
    try {
      await link(source, name);
    } catch (error) {
      throw new Error(
        `${folder} cannot take a hard link from ${layout.staging} (${messageOf(error)}); all of ${layout.root} must lie on one filesystem`,
        { cause: error },
      );
    }
    await rm(name);
  }
  const clones = await reflink(source, join(layout.staging, "probe-clone"));
  await empty(layout.staging);
  return clones ? "reflink" : "copy";
}

/**
 * Makes the folders under the root, checks what lies under them, and finds out how files are cloned there.
 * Empties staging and trash. Throws a plain Error with a sentence for the operator.
 */
export async function prepareFilesystem(layout: Layout): Promise<CloneMode> {
  const { root } = layout;
  if (!isAbsolute(root)) throw new Error(`The root ${root} is not an absolute path.`);
  if (Buffer.byteLength(root) > LONGEST_ROOT) {
    throw new Error(
      `The root ${root} is too long: with more than ${LONGEST_ROOT} bytes its socket has no valid path.`,
    );
  }
  await mkdir(root, { recursive: true, mode: 0o755 });
  for (const folder of layout.folders) await makeFolder(folder);
  // What is acknowledged later lies in these: their names must outlast a loss of power first, and so must the root's.
  await syncDirectory(root);
  await syncDirectory(dirname(root));
  const real = await realpath(root);
  const folders = await Promise.all(layout.folders.map((folder) => realpath(folder)));
  const problem = mountProblem(await readFile("/proc/self/mountinfo", "utf8"), real, folders);
  if (problem !== undefined) throw new Error(`The root cannot be used: ${problem}.`);
  await empty(layout.staging);
  await empty(layout.trash);
  return probe(layout);
}
