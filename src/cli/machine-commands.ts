import type { Command } from "commander";
import type { ComputerHostClient, MachineMade } from "../client/client.ts";
import type { Machine } from "../contract/machine.ts";
import {
  addGuestOptions,
  type GuestOptions,
  guestBody,
  sizeBody,
  type SizeOptions,
} from "./guest-options.ts";
import type { CliIo } from "./io.ts";
import { formatBytes, parseCount, parseDiskBytes, parseMemoryMib } from "./sizes.ts";
import { facts, table } from "./table.ts";

/** What the commands share. */
export interface CliContext {
  readonly io: CliIo;
  /** True when answers are printed as JSON. */
  readonly json: () => boolean;
  /** Runs `action` with a client of the daemon and closes it again. */
  withClient(action: (client: ComputerHostClient) => Promise<void>): Promise<void>;
}

/** Adds `health`, `create`, `list`, `get`, `stop`, `start`, `pause`, `resume`, `resize` and `delete`. */
export function addMachineCommands(program: Command, context: CliContext): void {
  program
    .command("health")
    .description("show the daemon: version, which VMM and why, room left, warnings")
    .action(() => context.withClient((client) => showHealth(client, context)));

  addGuestOptions(program.command("create").argument("<machine>", "id of the new machine"))
    .description("create a machine and wait until it runs")
    .option("--image <name>", "local image (default: the daemon's default image)")
    .action((machine_id: string, options: GuestOptions & { image?: string }) =>
      context.withClient(async (client) => {
        const body = {
          machine_id,
          ...(options.image === undefined ? {} : { image: options.image }),
          ...(await guestBody(options)),
        };
        printMade(context, await client.createMachine(body));
      }),
    );

  program
    .command("list")
    .description("list the machines")
    .action(() =>
      context.withClient(async (client) => {
        const machines = await client.listMachines();
        context.io.out(context.json() ? toJson({ machines }) : machineTable(machines));
      }),
    );

  program
    .command("get")
    .description("show one machine")
    .argument("<machine>", "id of the machine")
    .action((id: string) =>
      context.withClient(async (client) => {
        const machine = await client.getMachine(id);
        printMachine(context, machine);
      }),
    );

  program
    .command("stop")
    .description("shut a machine down; its disk and identity stay")
    .argument("<machine>", "id of the machine")
    .action((id: string) => context.withClient((client) => client.stopMachine(id)));

  for (const { name, description, act } of TURNS) {
    program
      .command(name)
      .description(description)
      .argument("<machine>", "id of the machine")
      .action((id: string) =>
        context.withClient(async (client) => {
          printMachine(context, await act(client, id));
        }),
      );
  }

  program
    .command("resize")
    .description("give a stopped machine another size, from its next start on")
    .argument("<machine>", "id of the machine")
    .option("--memory <size>", "memory of the guest, such as 512MiB", parseMemoryMib)
    .option("--vcpus <count>", "number of virtual CPUs", parseCount)
    .option("--disk <size>", "size of the system disk, such as 2GiB; it only grows", parseDiskBytes)
    .action((id: string, options: SizeOptions) =>
      context.withClient(async (client) => {
        printMachine(context, await client.resizeMachine(id, sizeBody(options)));
      }),
    );

  program
    .command("delete")
    .description("delete machines and their disks; their snapshots stay")
    .argument("<machine...>", "ids of the machines")
    .action((ids: readonly string[]) =>
      context.withClient(async (client) => {
        for (const id of ids) await client.deleteMachine(id);
      }),
    );
}

/** Calls that take a machine's id and answer with the machine. */
const TURNS = [
  {
    name: "start",
    description: "start a stopped machine and wait until it runs",
    act: (client: ComputerHostClient, id: string) => client.startMachine(id),
  },
  {
    name: "pause",
    description: "make a machine stand still; its memory stays",
    act: (client: ComputerHostClient, id: string) => client.pauseMachine(id),
  },
  {
    name: "resume",
    description: "let a paused machine go on",
    act: (client: ComputerHostClient, id: string) => client.resumeMachine(id),
  },
] as const;

/** Prints a machine that create or restore answered with. */
export function printMade(context: CliContext, { machine, created }: MachineMade): void {
  if (!created && !context.json()) context.io.err(`${machine.id} was there already, from the same request`);
  printMachine(context, machine);
}

function printMachine({ io, json }: CliContext, machine: Machine): void {
  io.out(json() ? toJson({ machine }) : machineFacts(machine));
}

/** An answer of the contract, as it came. */
export function toJson(answer: object): string {
  return JSON.stringify(answer, null, 2);
}

async function showHealth(client: ComputerHostClient, { io, json }: CliContext): Promise<void> {
  const health = await client.health();
  if (json()) {
    io.out(toJson(health));
    return;
  }
  const { vmm, machines, memory } = health;
  io.out(
    facts([
      ["status", health.ok ? "ok" : "not ok"],
      ["version", `${health.version} (node ${health.node_version})`],
      ["uptime", `${Math.round(health.uptime_seconds)} s`],
      ["root", `${health.root_dir} (tag ${health.tag})`],
      ["vmm", `${vmm.name} ${vmm.version}: ${vmm.reason}`],
      ["disk clones", health.disk_clone],
      ["memory", `${memory.committed_mib} of ${memory.limit_mib} MiB given out`],
      [
        "machines",
        (["running", "starting", "stopped", "failed"] as const)
          .map((phase) => `${machines[phase]} ${phase}`)
          .join(", "),
      ],
      ...health.warnings.map(({ severity, text }) => [severity, text] as const),
    ]),
  );
}

function machineTable(machines: readonly Machine[]): string {
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
    ["created", machine.created_at],
    ["started", machine.started_at],
    ["stopped", machine.stopped_at],
  ]);
}

function phaseOf({ phase, paused }: Machine): string {
  return paused === true ? `${phase} (paused)` : phase;
}

function sourceOf({ snapshot_id, image, artifact }: Machine): string {
  return snapshot_id === undefined ? (image ?? artifact.rootfs_url) : `snapshot ${snapshot_id}`;
}
