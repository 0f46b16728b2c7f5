import type { Client, ClientChannel } from "ssh2";
import { SshFailure } from "./ssh-failure.ts";

/** How a command that the guest took ended: with an exit code, by a signal, or with its connection. */
export type CommandEnd = { readonly code: number } | "signalled" | "disconnected";

export interface CommandOptions {
  /** Called when the guest has taken the command. */
  readonly onTaken?: () => void;
  /**
   * Called with each line of the output. What it returns first is written to the command's input, which ends
   * with it. The end of the command is then known only once all its output was read.
   */
  readonly onLine?: (line: string) => Uint8Array | undefined;
}

/** What is longer is no line of a command of ours: it is thrown away. */
const LINE_LIMIT = 1024;

/**
 * Runs `command` in the login shell of a client that is logged in. Rejects with an `SshFailure` when the guest
 * does not take it, with the signal's reason on abort. `host` is for the error's words.
 */
export async function runCommand(
  client: Client,
  host: string,
  command: string,
  signal: AbortSignal,
  options: CommandOptions = {},
): Promise<CommandEnd> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<CommandEnd>();
  let taken = false;
  const onAbort = (): void => reject(signal.reason);
  const onClose = (): void => {
    if (taken) resolve("disconnected");
    else reject(new SshFailure("closed", `${host} closed the connection before it took the command`));
  };
  signal.addEventListener("abort", onAbort, { once: true });
  client.once("close", onClose);
  try {
    client.exec(command, (error, channel) => {
      if (error !== undefined) {
        reject(new SshFailure("closed", `${host} did not take the command: ${error.message}`, error));
        return;
      }
      taken = true;
      options.onTaken?.();
      let end: CommandEnd = "disconnected";
      channel.on("error", () => {});
      channel.once("exit", (code: number | null) => {
        end = code === null ? "signalled" : { code };
        if (options.onLine === undefined) resolve(end);
      });
      channel.once("close", () => resolve(end));
      channel.stderr.resume();
      if (options.onLine === undefined) channel.resume();
      else answerLines(channel, options.onLine, reject);
    });
    return await promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    client.off("close", onClose);
  }
}

function answerLines(
  channel: ClientChannel,
  onLine: NonNullable<CommandOptions["onLine"]>,
  reject: (error: unknown) => void,
): void {
  let rest = "";
  let answered = false;
  channel.on("data", (piece: Buffer) => {
    const lines = (rest + piece.toString("latin1")).split("\n");
    // Of a line that is too long its end is kept, which is too long as well.
    rest = (lines.pop() ?? "").slice(-LINE_LIMIT - 1);
    for (const line of lines) {
      if (line.length > LINE_LIMIT) continue;
      try {
        const answer = onLine(line);
        if (answer === undefined || answered) continue;
        answered = true;
        channel.end(answer);
      } catch (error) {
        reject(error);
        return;
      }
    }
  });
}
