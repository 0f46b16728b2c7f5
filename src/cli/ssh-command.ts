import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import type { Machine } from "../contract/machine.ts";
import type { CliContext } from "./context.ts";

interface SshOptions {
  readonly identity?: string;
  readonly login?: string;
  readonly tty?: boolean;
}

/** Adds `ssh`. `setExitCode` is told the code with which `ssh` ended. */
export function addSshCommand(
  program: Command,
  context: CliContext,
  setExitCode: (code: number) => void,
): void {
  withOptions(program.command("ssh"))
    .description("open a shell in a machine, or run a command in it, by the system's ssh")
    .argument("<machine>", "id of the machine")
    .argument("[command...]", "joined by spaces and given to the guest's shell, as ssh does")
    .action((id: string, rest: readonly string[], before: SshOptions, self: Command) =>
      context.withClient(async (client) => {
        // As with ssh itself, options may follow the machine too; the command begins at the first word that is none.
        const after = withOptions(new Command("ssh").copyInheritedSettings(self))
          .helpOption(false)
          .argument("[command...]")
          .parse(rest, { from: "user" });
        const machine = await client.getMachine(id);
        setExitCode(await runSsh(machine, after.args, { ...before, ...after.opts<SshOptions>() }));
      }),
    );
}

function withOptions(command: Command): Command {
  return command
    .option("-i, --identity <file>", "private key to log in with")
    .option("-l, --login <user>", "user to log in as (default: the image's)")
    .option("-t, --tty", "give the command a terminal")
    .passThroughOptions();
}

/** Runs ssh on the terminal of this process and returns its exit code: 128 and the signal's number when a signal ended it. */
async function runSsh(machine: Machine, command: readonly string[], options: SshOptions): Promise<number> {
  const { runtime_host: host, guest_ssh_host_public_key: hostKey } = machine;
  if (host === undefined || hostKey === undefined) {
    throw new Error(`${machine.id} cannot be reached: it is ${machine.phase}`);
  }
  const folder = await mkdtemp(join(tmpdir(), "computer-ssh-"));
  try {
    // The daemon vouches for exactly this key: ssh neither asks nor remembers anything of its own.
    const knownHosts = join(folder, "known_hosts");
    await writeFile(knownHosts, `${machine.id} ${hostKey}\n`, { mode: 0o600 });
    const settings = [
      `UserKnownHostsFile="${knownHosts}"`,
      "GlobalKnownHostsFile=/dev/null",
      `HostKeyAlias=${machine.id}`,
      "HostKeyAlgorithms=ssh-ed25519",
      "StrictHostKeyChecking=yes",
      "UpdateHostKeys=no",
    ];
    const argv = settings.flatMap((setting) => ["-o", setting]);
    if (options.identity !== undefined) argv.push("-i", options.identity);
    if (options.tty === true) argv.push("-t");
    argv.push("-l", options.login ?? machine.guest_user, "--", host, ...command);
    const child = spawn("ssh", argv, { stdio: "inherit" });
    // The terminal's Ctrl-C is for the command in the guest; the file above must outlive it.
    const ignore = (): void => {};
    const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
    process.on("SIGINT", ignore).on("SIGTERM", forward).on("SIGHUP", forward);
    try {
      const [code, signal]: (number | NodeJS.Signals | null)[] = await once(child, "close");
      if (typeof code === "number") return code;
      return 128 + (typeof signal === "string" ? constants.signals[signal] : 0);
    } finally {
      process.off("SIGINT", ignore).off("SIGTERM", forward).off("SIGHUP", forward);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
