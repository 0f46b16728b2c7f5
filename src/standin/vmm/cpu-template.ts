/** Which of Firecracker's static CPU templates this CPU takes. QEMU shapes no CPU by one: what counts is what is refused. */
import type { MachineConfig } from "./bodies.ts";
import { Fault } from "./fault.ts";

type Template = Exclude<NonNullable<MachineConfig["cpu_template"]>, "None">;

/** Family, model and stepping, as /proc/cpuinfo gives them. */
const SKYLAKE = "6 85 4";
const CASCADE_LAKE = "6 85 7";
const ICE_LAKE = "6 106 6";
const MILAN = "25 1 1";

const TEMPLATES: Readonly<Record<Template, { readonly vendor: string; readonly models: readonly string[] }>> =
  {
    C3: { vendor: "GenuineIntel", models: [SKYLAKE, CASCADE_LAKE, ICE_LAKE] },
    T2: { vendor: "GenuineIntel", models: [SKYLAKE, CASCADE_LAKE, ICE_LAKE] },
    T2S: { vendor: "GenuineIntel", models: [SKYLAKE, CASCADE_LAKE] },
    T2CL: { vendor: "GenuineIntel", models: [CASCADE_LAKE, ICE_LAKE] },
    T2A: { vendor: "AuthenticAMD", models: [MILAN] },
  };

/** `cpuinfo`: the text of /proc/cpuinfo. Throws Fault for a template that this CPU does not take. */
export function checkCpuTemplate(template: MachineConfig["cpu_template"], cpuinfo: string): void {
  if (template === null || template === "None") return;
  const field = (name: string): string | undefined =>
    new RegExp(`^${name}\\s*: (.*)$`, "m").exec(cpuinfo)?.[1];
  const { vendor, models } = TEMPLATES[template];
  const failed = "Start microvm error: Failed to get CPU template";
  if (field("vendor_id") !== vendor)
    throw new Fault(`${failed}: CPU vendor mismatched between actual CPU and CPU template.`);
  if (!models.includes(["cpu family", "model", "stepping"].map(field).join(" "))) {
    throw new Fault(`${failed}: The current CPU model is not permitted to apply the CPU template.`);
  }
}
