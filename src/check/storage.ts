import { existsSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Settings } from "../settings.ts";
import { mountProblem } from "../storage/filesystem.ts";
import { type Finding, fail, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

/** Filesystems that clone files by reference. XFS does unless it was made without reflink=1, which is its default. */
const CLONING = ["xfs", "btrfs", "bcachefs"];
const LITTLE_BYTES = 10 * 2 ** 30;

type StorageSettings = Pick<Settings, "rootDir" | "imageDir" | "defaultImage" | "diskCloneMode">;

/** The folder that holds everything the daemon keeps, and the image that a create takes. */
export function storageFindings(files: HostFiles, settings: StorageSettings): Finding[] {
  return [rootFolder(files, settings), diskClones(files, settings), diskSpace(settings), image(settings)];
}

function rootFolder(files: HostFiles, { rootDir }: StorageSettings): Finding {
  const mountinfo = files.text("/proc/self/mountinfo") ?? "";
  const problem = mountProblem(mountinfo, rootDir, [rootDir]);
  if (problem !== undefined) return fail("root folder", problem);
  return ok("root folder", `${rootDir}, on ${filesystemOf(mountinfo, rootDir)}, without nodev and noexec`);
}

function diskClones(files: HostFiles, { rootDir, diskCloneMode }: StorageSettings): Finding {
  const type = filesystemOf(files.text("/proc/self/mountinfo") ?? "", rootDir);
  if (diskCloneMode === "copy")
    return warn("disk clones", "DISK_CLONE_MODE is copy: each machine copies its disk");
  if (CLONING.includes(type))
    return ok("disk clones", `by reference, on ${type} (GET /health tells what it found)`);
  if (diskCloneMode === "reflink")
    return fail(
      "disk clones",
      `DISK_CLONE_MODE is reflink, and ${type} clones nothing: put ${rootDir} on XFS or btrfs`,
    );
  return warn(
    "disk clones",
    `${type} clones nothing, so each machine copies its disk: put ${rootDir} on XFS or btrfs`,
  );
}

function diskSpace({ rootDir }: StorageSettings): Finding {
  let folder = rootDir;
  while (!existsSync(folder)) folder = dirname(folder);
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  const text = `${(free / 2 ** 30).toFixed(1)} GiB are free for ${rootDir}`;
  return free < LITTLE_BYTES
    ? warn("disk space", `${text}: disks are sparse and grow into it`)
    : ok("disk space", text);
}

function image({ imageDir, defaultImage }: StorageSettings): Finding {
  if (existsSync(join(imageDir, defaultImage, "manifest.json")))
    return ok("image", `${defaultImage} in ${imageDir}`);
  return fail("image", `the default image ${defaultImage} is not in ${imageDir}: run make images`);
}

/** Type of the filesystem that `path` lies on, by the text of /proc/self/mountinfo. Of mounts on one point the last is on top. */
export function filesystemOf(mountinfo: string, path: string): string {
  let best = { point: "", type: "an unknown filesystem" };
  for (const line of mountinfo.split("\n")) {
    const point = line.split(" ")[4] ?? "";
    const type = / - (\S+) /.exec(line)?.[1];
    const holds = point === "/" || path === point || path.startsWith(`${point}/`);
    if (type !== undefined && holds && point.length >= best.point.length) best = { point, type };
  }
  return best.type;
}
