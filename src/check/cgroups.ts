import { type Finding, ok, warn } from "./finding.ts";
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
  const old = mounts.filter(({ type }) => type === "cgroup").flatMap(({ options }) => options);
  return [version1(old), favorDynMods(files, undefined)];
}

function version2(files: HostFiles, { point }: Mount, offered: readonly string[]): Finding {
  const delegated = words(files.text(`${point}/cgroup.subtree_control`));
  // The hierarchy's real root has no such file: there the daemon hands controllers down itself.
  const isInner = files.exists(`${point}/cgroup.events`);
  const missing = WANTED.filter((name) => !delegated.includes(name));
  if (isInner && missing.length > 0) {
    return warn(
      "cgroups",
      `version 2, but this is the cgroup of a container and ${missing.join(", ")} are not handed down (cgroup.subtree_control): machines cannot be limited here`,
    );
  }
  return ok("cgroups", `version 2 with ${offered.join(" ")}`);
}

function version1(mounted: readonly string[]): Finding {
  const missing = WANTED.filter((name) => !mounted.includes(name));
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
