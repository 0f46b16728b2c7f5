import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Place } from "../../support/playground.ts";

/** A small program that goes on in a place until it is disposed. */
export interface Served extends AsyncDisposable {
  /** For an echo client: sends a line and returns what came back within a second, or undefined. */
  say(line: string): Promise<string | undefined>;
}

const PATIENCE_MS = 3000;
const SCRIPT = fileURLToPath(new URL("served.ts", import.meta.url));

/** Starts a listener that answers each connection by the peer's address, or an echo client that stays connected. */
export async function serve(
  place: Place,
  kind: "listener" | "echo-client",
  address: string,
  port: number,
): Promise<Served> {
  const [file, ...args] = place.command([process.execPath, SCRIPT, kind, address, String(port)]);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const next = async (patienceMs: number): Promise<string | undefined> => {
    const waiting = new AbortController();
    const timer = setTimeout(() => waiting.abort(), patienceMs);
    try {
      const [line] = (await once(lines, "line", { signal: waiting.signal })) as [string];
      return line;
    } catch {
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  };
  const end = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  if ((await next(20_000)) !== "ready") {
    await end();
    throw new Error(`the ${kind} at ${address} port ${port} did not start`);
  }
  return {
    say: async (line) => {
      const answer = next(PATIENCE_MS);
      if (line !== "") child.stdin.write(`${line}\n`);
      return answer;
    },
    [Symbol.asyncDispose]: end,
  };
}
