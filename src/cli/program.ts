import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { createClient } from "../client/client.ts";
import { ClientError } from "../client/client-error.ts";
import { defaultSocketPath } from "../client/socket-path.ts";
import { addAuditCommand } from "./audit-command.ts";
import type { CliContext } from "./context.ts";
import { addForkCommand } from "./fork-command.ts";
import { type CliIo, EXIT } from "./io.ts";
import { addMachineCommands } from "./machine-commands.ts";
import { addReportCommand } from "./report-command.ts";
import { addSnapshotCommands } from "./snapshot-commands.ts";
import { addSshCommand } from "./ssh-command.ts";
import { addTransferCommands } from "./transfer-commands.ts";

/**
 * Runs one command line (`argv` without the program's own name) and returns the exit code: 0 done, 1 the daemon
 * or the system said no, 2 the command line is wrong; `ssh` returns ssh's own.
 */
export async function runCli(argv: readonly string[], io: CliIo): Promise<number> {
  let exitCode: number = EXIT.done;
  let shared: SharedOptions = {};
  const program = new Command("computer")
    .description("Talks to the computer-host daemon on this host.")
    .configureHelp({ showGlobalOptions: true })
    // What follows the machine of `ssh` belongs to the command in the guest.
    .enablePositionalOptions()
    .hook("preAction", (_program, command) => {
      shared = command.optsWithGlobals<SharedOptions>();
    })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.out(text.trimEnd()),
      writeErr: (text) => io.err(text.trimEnd()),
    });
  const context: CliContext = {
    io,
    json: () => shared.json === true,
    withClient: async (action) => {
      await using client = createClient({ socketPath: shared.socket ?? defaultSocketPath(io.environment) });
      await action(client);
    },
  };
  addMachineCommands(program, context);
  addForkCommand(program, context);
  addSnapshotCommands(program, context);
  addTransferCommands(program, context);
  addReportCommand(program, context);
  addAuditCommand(program, context, (code) => {
    exitCode = code;
  });
  addSshCommand(program, context, (code) => {
    exitCode = code;
  });
  addSharedOptions(program, false);
  // `computer list --json` is how people write it: each command takes them as well.
  for (const command of program.commands) addSharedOptions(command, true);
  try {
    await program.parseAsync(argv, { from: "user" });
    return exitCode;
  } catch (error) {
    return report(error, io);
  }
}

interface SharedOptions {
  readonly socket?: string;
  readonly json?: boolean;
}

function addSharedOptions(command: Command, hidden: boolean): void {
  const socket = "the daemon's socket (default: firecracker-host.sock in FIRECRACKER_HOST_ROOT_DIR)";
  command.addOption(new Option("--socket <path>", socket).hideHelp(hidden));
  command.addOption(new Option("--json", "print answers as JSON").hideHelp(hidden));
}

function report(error: unknown, io: CliIo): number {
  // Commander has printed its own errors; help that was asked for is one of them, with code 0.
  if (error instanceof InvalidArgumentError) io.err(error.message);
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  if (!(error instanceof ClientError)) {
    io.err(`error: ${error instanceof Error ? error.message : String(error)}`);
    return EXIT.failed;
  }
  io.err(`error: ${error.message} (${error.code})`);
  const { console_tail: tail, ...details } = error.details ?? {};
  for (const [name, value] of Object.entries(details)) {
    io.err(`  ${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  }
  if (typeof tail === "string" && tail !== "") {
    io.err(["  the guest's console ended with:", ...tail.trimEnd().split("\n")].join("\n    "));
  }
  return EXIT.failed;
}
