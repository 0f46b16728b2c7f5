import { messageOf } from "../contract/errors.ts";
import type { Health, Warning } from "../contract/health.ts";
import type { Phase } from "../contract/machine.ts";
import { VERSION } from "../version.ts";
import type { HostContext } from "./context.ts";

/** GET /health: what runs here, on what, and what an operator should know of it. */
export async function lookAtHealth(
  { vmms, network, storage, admission, settings, state }: HostContext,
  uptime_seconds: number,
  closing: boolean,
): Promise<Health> {
  const machines: Record<Phase, number> = { starting: 0, running: 0, stopped: 0, failed: 0 };
  for (const { phase } of state.state.machines.values()) machines[phase] += 1;
  const startWarnings = settings.startWarnings.map(
    (text) => ({ code: "setting", severity: "warning", text }) as const,
  );
  const setAside = state.setAside.map(({ kind, id, reason }) => ({
    code: "record_set_aside",
    severity: "warning" as const,
    text: `the record of ${kind} ${id ?? "(no id)"} in the state cannot be used: ${reason}`,
  }));
  const ofNetwork = await network.warnings().catch((error: unknown): Warning[] => [
    {
      code: "network_unknown",
      severity: "error",
      text: `the host's network could not be looked at: ${messageOf(error)}`,
    },
  ]);
  const warnings = [...startWarnings, ...setAside, ...ofNetwork];
  return {
    ok: !closing && !warnings.some(({ severity }) => severity === "error"),
    version: VERSION,
    node_version: process.versions.node,
    uptime_seconds,
    root_dir: settings.rootDir,
    tag: settings.tag,
    vmm: vmms.description,
    machines,
    memory: {
      total_mib: admission.totalMib,
      committed_mib: admission.committedMib,
      limit_mib: admission.limitMib,
    },
    disk_clone: storage.cloneMode,
    warnings,
  };
}
