import { type Finding, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

const VULNERABILITIES = "/sys/devices/system/cpu/vulnerabilities";

/** What keeps guests from learning each other's secrets through the processor and its memory. */
export function cpuFindings(files: HostFiles): Finding[] {
  return [smt(files), ...vulnerabilities(files), mitigations(files), microcode(files), ecc(files)];
}

function smt(files: HostFiles): Finding {
  const active = files.text("/sys/devices/system/cpu/smt/active");
  if (active === "0") return ok("smt", "off");
  if (active === undefined)
    return warn("smt", "the kernel does not say whether it is on; turn it off in the firmware");
  return warn(
    "smt",
    "on: guests that share a core can observe each other; boot with nosmt, or write off to /sys/devices/system/cpu/smt/control",
  );
}

function vulnerabilities(files: HostFiles): Finding[] {
  const names = files.list(VULNERABILITIES).filter((name) => name !== "old_microcode");
  if (names.length === 0)
    return [warn("cpu flaws", `the kernel has no ${VULNERABILITIES}: take a newer one, which knows them`)];
  const open = names
    .map((name) => ({ name, state: files.text(`${VULNERABILITIES}/${name}`) ?? "unknown" }))
    .filter(
      ({ state }) => !/^(?:Not affected|(?:KVM: )?Mitigation: )/.test(state) || /\bvulnerable\b/i.test(state),
    );
  if (open.length === 0)
    return [ok("cpu flaws", `mitigated, or not there: all ${names.length} that the kernel knows`)];
  return open.map(({ name, state }) =>
    warn(
      "cpu flaws",
      `${name}: ${state}; update firmware, microcode and kernel (docs.kernel.org/admin-guide/hw-vuln)`,
    ),
  );
}

/** `mitigations=` takes off, auto or auto,nosmt; newer kernels also words such as no_guest_host, each of which drops some. */
function mitigations(files: HostFiles): Finding {
  const value = /(?:^|\s)mitigations=(\S+)/.exec(files.text("/proc/cmdline") ?? "")?.[1] ?? "auto";
  const words = value.split(/[,;]/);
  if (words.some((word) => word === "off" || word.startsWith("no_")))
    return warn(
      "mitigations",
      `the kernel was booted with mitigations=${value}: remove it from its command line`,
    );
  return ok("mitigations", `mitigations=${value}`);
}

function microcode(files: HostFiles): Finding {
  const state = files.text(`${VULNERABILITIES}/old_microcode`);
  if (state?.startsWith("Vulnerable"))
    return warn("microcode", `${state}: install the distribution's microcode package, or newer firmware`);
  const revision = /^microcode\s*:\s*(\S+)/m.exec(files.text("/proc/cpuinfo") ?? "")?.[1];
  if (state === undefined)
    return ok(
      "microcode",
      `revision ${revision ?? "unknown"}; this kernel cannot tell whether that is old, so keep it updated`,
    );
  return ok("microcode", `revision ${revision ?? "unknown"}, and none that the kernel knows to be old`);
}

/** Error correction is half of what helps against Rowhammer; whether the modules refresh rows, no file tells. */
function ecc(files: HostFiles): Finding {
  if (files.list("/sys/devices/system/edac/mc").some((name) => /^mc\d+$/.test(name)))
    return ok("ecc", "a memory controller with error correction is there");
  return warn(
    "ecc",
    "no sign of memory with error correction; against Rowhammer, take ECC memory with target row refresh",
  );
}
