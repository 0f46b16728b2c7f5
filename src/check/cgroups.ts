import { type Finding, fail, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";
import { isKernelAtLeast } from "./kernel.ts";

const WANTED = ["memory", "cpu", "pids"] as const;

interface Mount {
  readonly point: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** What limits a VMM's memory, processors and processes. */
export function cgroupFindings(files: HostFiles): Finding[] {
  const mounts: Mount[] = (files.text("/proc/mounts") ?? "").split("\n").map((line) => {
    const [, point = "", type = "", options = ""] = line.split(" ");
    return { point, type, options: options.split(",") };
  });
  const unified = mounts.find(({ type }) => type === "cgroup2");
  const offered = words(unified && files.text(`${unified.point}/cgroup.controllers`));
  if (unified !== undefined && WANTED.every((name) => offered.includes(name)))
    return [version2(files, unified, offered), favorDynMods(files, unified)];
  return [version1(mounts.filter(({ type }) => type === "cgroup")), favorDynMods(files, undefined)];
}

function version2(files: HostFiles, { point, options }: Mount, offered: readonly string[]): Finding {
  if (options.includes("ro"))
    return fail("cgroups", `${point} is mounted read-only: no groups can be made for machines`);
  const delegated = words(files.text(`${point}/cgroup.subtree_control`));
  const missing = WANTED.filter((name) => !delegated.includes(name));
  // Only a group below the real root has this file, as in a container; it hands nothing down while processes are in it.
  const isInner = files.exists(`${point}/cgroup.events`);
  const isBusy = (files.text(`${point}/cgroup.procs`) ?? "") !== "";
  if (isInner && isBusy && missing.length > 0) {
    return fail(
      "cgroups",
      `version 2, but ${point} is the group of a container and does not hand down ${missing.join(", ")}: run on the host, or have that delegated (cgroup.subtree_control)`,
    );
  }
  return ok("cgroups", `version 2 with ${offered.join(" ")}`);
}

function version1(mounts: readonly Mount[]): Finding {
  const ofOne = (name: string): Mount | undefined => mounts.find(({ options }) => options.includes(name));
  const readOnly = WANTED.find((name) => ofOne(name)?.options.includes("ro") === true);
  if (readOnly !== undefined)
    return fail(
      "cgroups",
      `the ${readOnly} controller is mounted read-only: no groups can be made for machines`,
    );
  const missing = WANTED.filter((name) => ofOne(name) === undefined);
  if (missing.length === 0) return ok("cgroups", `version 1 with ${WANTED.join(" ")}`);
  return warn("cgroups", `no controller for ${missing.join(", ")} is mounted: VMMs are not limited in that`);
}

/** Moving a process into a cgroup, as each start of a VMM does, waits for a grace period on kernels that favour readers. */
function favorDynMods(files: HostFiles, unified: Mount | undefined): Finding {
  const isOn =
    unified?.options.includes("favordynmods") === true ||
    /\bcgroup_favordynmods=(?:true|1|on|yes)\b/.test(files.text("/proc/cmdline") ?? "");
  if (isOn) return ok("favordynmods", "on");
  if (!isKernelAtLeast(files, 6, 0)) return ok("favordynmods", "not needed before Linux 6.0");
  return warn(
    "favordynmods",
    unified === undefined
      ? "off, which slows starts of machines: boot with cgroup_favordynmods=true"
      : `off, which slows starts of machines: mount -o remount,favordynmods ${unified.point}`,
  );
}

function words(text: string | undefined): readonly string[] {
  return text === undefined ? [] : text.split(/\s+/).filter((word) => word !== "");
}
