import type { Command } from "commander";
import type { ComputerHostClient } from "../client/client.ts";
import { type CliContext, toJson } from "./context.ts";
import {
  addGuestOptions,
  addSizeOptions,
  type GuestOptions,
  guestBody,
  type SizeOptions,
  sizeBody,
} from "./guest-options.ts";
import { addHardwareOptions, type HardwareFlags, hardwareBody } from "./hardware-options.ts";
import { machineTable, printMachine, printMade } from "./machine-text.ts";
import { parseCount, parseDiskBytes, parseMemoryMib } from "./sizes.ts";
import { facts } from "./table.ts";

/** Adds `health`, `create`, `list`, `get`, `stop`, `start`, `pause`, `resume`, `resize` and `delete`. */
export function addMachineCommands(program: Command, context: CliContext): void {
  program
    .command("health")
    .description("show the daemon: version, which VMM and why, room left, warnings")
    .action(() => context.withClient((client) => showHealth(client, context)));

  const create = program
    .command("create")
    .description("create a machine and wait until it runs")
    .argument("<machine>", "id of the new machine")
    .option("--image <name>", "local image (default: the daemon's default image)");
  addHardwareOptions(addGuestOptions(addSizeOptions(create))).action(
    (machine_id: string, options: CreateOptions) =>
      context.withClient(async (client) => {
        const body = {
          machine_id,
          ...(options.image === undefined ? {} : { image: options.image }),
          ...sizeBody(options),
          ...(await guestBody(options)),
          ...hardwareBody(options),
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
    .description(
      "give a machine more disk; a stopped one also another memory or other vCPUs, from its next start on",
    )
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

type CreateOptions = SizeOptions & GuestOptions & HardwareFlags & { readonly image?: string };

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
