import { runCli } from "../../../src/cli/program.ts";
import {
  always,
  type Responder,
  type SeenRequest,
  startSocketServer,
} from "../client/support/socket-server.ts";

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly requests: readonly SeenRequest[];
}

/** Runs one command line against a daemon that answers by `responder`. */
export async function cli(argv: readonly string[], responder: Responder = always(204)): Promise<Ran> {
  await using server = await startSocketServer(responder);
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCli(argv, {
    environment: { FIRECRACKER_HOST_ROOT_DIR: server.folder },
    out: (text) => out.push(text),
    err: (text) => err.push(text),
  });
  return { code, out: out.join("\n"), err: err.join("\n"), requests: server.requests };
}
