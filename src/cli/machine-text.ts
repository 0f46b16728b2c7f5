import type { MachineMade } from "../client/client.ts";
import type { Machine } from "../contract/machine.ts";
import { type CliContext, toJson } from "./context.ts";
import { formatBytes } from "./sizes.ts";
import { facts, table } from "./table.ts";

/** Prints a machine that create or restore answered with. */
export function printMade(context: CliContext, { machine, created }: MachineMade): void {
  if (!created && !context.json()) context.io.err(`${machine.id} was there already, from the same request`);
  printMachine(context, machine);
}

/** Prints one machine. */
export function printMachine({ io, json }: CliContext, machine: Machine): void {
  io.out(json() ? toJson({ machine }) : machineFacts(machine));
}

/** Machines as rows under a heading. */
export function machineTable(machines: readonly Machine[]): string {
  return table(
    ["ID", "PHASE", "ADDRESS", "IMAGE", "VCPUS", "MEMORY", "DISK", "CREATED"],
    machines.map((machine) => [
      machine.id,
      phaseOf(machine),
      machine.runtime_host ?? "-",
      sourceOf(machine),
      String(machine.vcpus),
      `${machine.memory_mib} MiB`,
      formatBytes(machine.storage_bytes),
      machine.created_at,
    ]),
  );
}

function machineFacts(machine: Machine): string {
  return facts([
    ["id", machine.id],
    ["phase", phaseOf(machine)],
    ["error", machine.error],
    ["address", machine.runtime_host],
    ["user", machine.guest_user],
    ["hostname", machine.hostname],
    ["host key", machine.guest_ssh_host_public_key],
    ["made from", sourceOf(machine)],
    ["size", `${machine.vcpus} vCPU, ${machine.memory_mib} MiB, disk ${formatBytes(machine.storage_bytes)}`],
    ["hardware", hardwareOf(machine)],
    ["vmm", vmmOf(machine)],
    ["restart", restartOf(machine)],
    ["ended", machine.ended === undefined ? undefined : `${machine.ended.how}, ${machine.ended.at}`],
    ["created", machine.created_at],
    ["started", machine.started_at],
    ["stopped", machine.stopped_at],
    ...(machine.receipt ?? []).map(
      ({ item, done, how }) => ["receipt", `${item}: ${done ? "done" : "not done"}, ${how}`] as const,
    ),
  ]);
}

/** What differs from a machine that asked for nothing. */
function hardwareOf({ hardware }: Machine): string | undefined {
  const { rate_limits, cpu_template, huge_pages, smt, track_dirty_pages, boot_args, pci } = hardware;
  const words = [
    ...(pci ? ["PCI"] : []),
    ...(smt ? ["SMT"] : []),
    ...(huge_pages === "2M" ? ["huge pages"] : []),
    ...(track_dirty_pages ? ["tracks dirty pages"] : []),
    ...(cpu_template === undefined ? [] : [`CPU template ${cpu_template}`]),
    ...(rate_limits === undefined ? [] : [`rate limits ${JSON.stringify(rate_limits)}`]),
    ...(boot_args === undefined ? [] : [`boot arguments "${boot_args}"`]),
  ];
  return words.length === 0 ? undefined : words.join(", ");
}

function restartOf({ restart, restarts }: Machine): string | undefined {
  if (restart === "never") return undefined;
  const { count = 0, next_at } = restarts ?? {};
  const times = count === 0 ? "" : `, ${count} times so far`;
  return `${restart}${times}${next_at === undefined ? "" : `, next at ${next_at}`}`;
}

function vmmOf({ vmm }: Machine): string | undefined {
  return vmm === undefined ? undefined : `${vmm.name} ${vmm.version}, pid ${vmm.pid}, uid ${vmm.uid}`;
}

function phaseOf({ phase, paused }: Machine): string {
  return paused === true ? `${phase} (paused)` : phase;
}

function sourceOf({ snapshot_id, image, artifact }: Machine): string {
  return snapshot_id === undefined ? (image ?? artifact.rootfs_url) : `snapshot ${snapshot_id}`;
}
