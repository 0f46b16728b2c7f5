import type { Command } from "commander";
import { type CliContext, toJson } from "./context.ts";
import { addGuestOptions, type GuestOptions, guestBody } from "./guest-options.ts";
import { machineTable } from "./machine-text.ts";
import { parseCount } from "./sizes.ts";

/** Adds `fork`. */
export function addForkCommand(program: Command, context: CliContext): void {
  const fork = program
    .command("fork")
    .description("make machines that go on where a running one stands, each with an identity of its own")
    .argument("<machine>", "id of the machine to fork")
    .argument("[child]", "id of the new machine, when there shall be one")
    .option("--count <count>", "how many new machines, with --prefix", parseCount)
    .option("--prefix <text>", "their ids are <text>1, <text>2, …");
  addGuestOptions(fork).action(
    (id: string, machine_id: string | undefined, options: GuestOptions & ForkOptions) =>
      context.withClient(async (client) => {
        const { count, prefix: id_prefix } = options;
        const { machines, created } = await client.forkMachine(id, {
          ...(machine_id === undefined ? {} : { machine_id }),
          ...(count === undefined ? {} : { count }),
          ...(id_prefix === undefined ? {} : { id_prefix }),
          ...(await guestBody(options)),
        });
        if (!created && !context.json()) context.io.err("they were there already, from the same request");
        context.io.out(context.json() ? toJson({ machines }) : machineTable(machines));
      }),
  );
}

interface ForkOptions {
  readonly count?: number;
  readonly prefix?: string;
}
