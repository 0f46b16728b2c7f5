import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly contentType: string | undefined;
  /** The parsed body; undefined when there was none. */
  readonly body: unknown;
}

export interface SocketServer extends AsyncDisposable {
  readonly socketPath: string;
  readonly folder: string;
  /** Requests in the order in which they came. */
  readonly requests: SeenRequest[];
}

export type Responder = (request: SeenRequest, response: ServerResponse) => void;

/** A server on a Unix socket in a folder of its own, in the daemon's place. */
export async function startSocketServer(respond: Responder): Promise<SocketServer> {
  const folder = await mkdtemp(join(tmpdir(), "computer-client-"));
  const socketPath = join(folder, "firecracker-host.sock");
  const requests: SeenRequest[] = [];
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await text(request);
    const seen = {
      method: request.method ?? "",
      path: request.url ?? "",
      contentType: request.headers["content-type"],
      body: body === "" ? undefined : (JSON.parse(body) as unknown),
    };
    requests.push(seen);
    respond(seen, response);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) =>
      response.destroy(error instanceof Error ? error : undefined),
    );
  });
  server.listen(socketPath);
  await once(server, "listening");
  return {
    socketPath,
    folder,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Answers each request with `status` and `body`. */
export function always(status: number, body?: object): Responder {
  return (_request, response) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  };
}
