import { readFileSync } from "node:fs";
import { machine, release } from "node:os";
import type { Manifest } from "../model/manifest.ts";

/** What a frozen guest depends on of the host that it was frozen on. */
export type HostFacts = Manifest["host"];

/** The facts of this host, read once: neither its processor nor its kernel changes while the daemon runs. */
export const hostFacts: () => HostFacts = once(() => ({
  kernel: release(),
  architecture: machine(),
  ...cpuOf(readFileSync("/proc/cpuinfo", "utf8")),
}));

/** The processor as the first entry of /proc/cpuinfo tells it. What the kernel does not tell is empty. */
export function cpuOf(cpuinfo: string): Pick<HostFacts, "cpu_vendor" | "cpu_model" | "cpu_flags"> {
  const [first = ""] = cpuinfo.split("\n\n");
  const field = (name: string): string =>
    new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(first)?.[1]?.trim() ?? "";
  const model = ["model name", "cpu family", "model", "stepping"].map(field).filter((text) => text !== "");
  const flags = field("flags") || field("Features");
  return {
    cpu_vendor: field("vendor_id") || field("CPU implementer"),
    cpu_model: model.join(", "),
    cpu_flags: flags
      .split(/\s+/)
      .filter((flag) => flag !== "")
      .sort(),
  };
}

function once<Value>(make: () => Value): () => Value {
  let made: { readonly value: Value } | undefined;
  return () => (made ??= { value: make() }).value;
}
