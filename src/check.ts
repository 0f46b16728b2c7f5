import { existsSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { cgroupFindings } from "./check/cgroups.ts";
import { cpuFindings } from "./check/cpu.ts";
import { type Finding, warn } from "./check/finding.ts";
import { HostFiles } from "./check/host-files.ts";
import { kernelFindings } from "./check/kernel.ts";
import { kvmFindings } from "./check/kvm.ts";
import { memoryFindings } from "./check/memory.ts";
import { networkFindings } from "./check/network.ts";
import { programFindings } from "./check/programs.ts";
import { storageFindings } from "./check/storage.ts";
import { vmmFindings } from "./check/vmm.ts";
import type { SettingsResult } from "./settings.ts";
import { tagOf } from "./tag.ts";
import type { Pair } from "./vmm/pair.ts";

/** What the composition root knows and a look at the host needs. */
export interface CheckSources {
  readonly searchPath: readonly string[];
  readonly fallback: Pair;
}

/**
 * `computer-host --check`: looks at everything that a start needs and at what Firecracker advises for hosts in
 * production, and changes nothing. Prints a line for each thing. Returns the exit code: 0 when the daemon can start and
 * make machines, whatever it warns of.
 */
export async function checkHost(result: SettingsResult, sources: CheckSources): Promise<number> {
  const findings = await lookAtHost(result, sources);
  const width = Math.max(...findings.map(({ what }) => what.length));
  const lines = findings.map(
    ({ what, level, text }) => `${level.padEnd(4)} ${what.padEnd(width)}  ${text}\n`,
  );
  process.stdout.write(lines.join(""));
  return findings.some(({ level }) => level === "FAIL") ? 1 : 0;
}

async function lookAtHost({ settings, warnings }: SettingsResult, sources: CheckSources): Promise<Finding[]> {
  const files = new HostFiles();
  const rootDir = existsSync(settings.rootDir) ? realpathSync(settings.rootDir) : settings.rootDir;
  const { firecrackerPath, jailerPath } = settings;
  const vmm = await vmmFindings(
    files,
    {
      ...sources,
      ...(firecrackerPath === undefined ? {} : { firecrackerPath }),
      ...(jailerPath === undefined ? {} : { jailerPath }),
      provenFile: join(rootDir, "linux-booted.json"),
    },
    join(rootDir, "jails"),
  );
  return [
    ...programFindings(files, process.getuid?.(), vmm.isReal !== false),
    ...vmm.findings,
    ...kvmFindings(files, vmm.isReal === true),
    ...cgroupFindings(files),
    ...storageFindings(files, { ...settings, rootDir }),
    ...(await networkFindings(files, settings, tagOf(rootDir))),
    ...cpuFindings(files),
    ...memoryFindings(files),
    ...kernelFindings(files),
    ...warnings.map((text) => warn("setting", text)),
  ];
}
