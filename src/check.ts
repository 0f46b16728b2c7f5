import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "./contract/errors.ts";
import type { SettingsResult } from "./settings.ts";
import { run } from "./system/run.ts";

interface Finding {
  readonly what: string;
  readonly ok: boolean;
  readonly text: string;
}

async function finding(what: string, look: () => Promise<string> | string): Promise<Finding> {
  try {
    return { what, ok: true, text: await look() };
  } catch (error) {
    return { what, ok: false, text: messageOf(error) };
  }
}

/**
 * `computer-host --check`: looks at everything that a start needs and changes nothing.
 * Prints a line for each thing. Returns the exit code: 0 when the daemon can start and make machines.
 */
export async function checkHost(
  { settings, warnings }: SettingsResult,
  standIns: { firecrackerPath: string; jailerPath: string },
): Promise<number> {
  const findings = [
    await finding("user", () => {
      if (process.getuid?.() !== 0) throw new Error("root is needed to run guests: use sudo");
      return "root";
    }),
    await finding("ip", async () => (await run(["ip", "-V"])).stdout.trim()),
    await finding("nft", async () => (await run(["nft", "--version"])).stdout.trim()),
    await finding("tun", () => {
      accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
      return "/dev/net/tun opens";
    }),
    await finding("cgroups", () => {
      const mounts = readFileSync("/proc/mounts", "utf8");
      if (/ cgroup2 /.test(mounts) && !/ cgroup [^\n]*\bmemory\b/.test(mounts)) return "v2";
      if (/ cgroup [^\n]*\bmemory\b/.test(mounts)) return "v1";
      throw new Error("no cgroup hierarchy with a memory controller is mounted");
    }),
    await finding("vmm", async () => {
      const named = [settings.firecrackerPath, settings.jailerPath];
      if (named.filter((path) => path !== undefined).length === 1) {
        throw new Error("FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH must be set together");
      }
      const path = settings.firecrackerPath ?? standIns.firecrackerPath;
      accessSync(settings.jailerPath ?? standIns.jailerPath, constants.X_OK);
      const { stdout } = await run([path, "--version"]);
      return `${path}: ${stdout.split("\n")[0] ?? ""}`;
    }),
    await finding("image", () => {
      const manifest = join(settings.imageDir, settings.defaultImage, "manifest.json");
      if (!existsSync(manifest))
        throw new Error(
          `the default image ${settings.defaultImage} is not in ${settings.imageDir}: run make images`,
        );
      return `${settings.defaultImage} in ${settings.imageDir}`;
    }),
    await finding("egress", async () => {
      if (settings.egressInterface !== undefined) return settings.egressInterface;
      const { stdout } = await run(["ip", "-4", "route", "show", "default"]);
      const device = /\bdev (\S+)/.exec(stdout)?.[1];
      return device ?? "no default route: guests will have no way out";
    }),
  ];
  for (const { what, ok, text } of findings)
    process.stdout.write(`${ok ? "ok  " : "FAIL"} ${what.padEnd(8)} ${text}\n`);
  for (const text of warnings) process.stdout.write(`warn ${"setting".padEnd(8)} ${text}\n`);
  return findings.every(({ ok }) => ok) ? 0 : 1;
}
