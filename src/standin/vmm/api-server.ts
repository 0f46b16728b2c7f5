/** The API socket: connections in, one request at a time through the controller, answers out. */
import { createServer, type Server, type Socket } from "node:net";

import type { Controller } from "./controller.ts";
import { Fault } from "./fault.ts";
import {
  formatResponse,
  HttpError,
  httpErrorResponse,
  type Request,
  RequestParser,
  type Response,
  TOO_MANY_CONNECTIONS,
} from "./http-connection.ts";
import type { Logger } from "./logger.ts";
import type { Action } from "./actions.ts";
import { route } from "./routes.ts";

const MAX_CONNECTIONS = 10;

export class ApiServer {
  readonly #controller: Controller;
  readonly #logger: Logger;
  readonly #maxBody: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Requests of all connections wait for each other, as they do for Firecracker's one thread. */
  #turn: Promise<void> = Promise.resolve();

  constructor(controller: Controller, logger: Logger, maxBody: number) {
    this.#controller = controller;
    this.#logger = logger;
    this.#maxBody = maxBody;
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  /** Lets the requests that come wait until `ready`. */
  holdUntil(ready: Promise<void>): void {
    this.#turn = this.#turn.then(async () => await ready);
  }

  /** Binds the socket, which must not exist. Throws the OS's error. */
  async listen(path: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(path, resolve);
    });
  }

  /** Waits until what was answered is on its way. */
  async flush(): Promise<void> {
    await this.#turn;
    const writes = [...this.#sockets].map(async (socket) => {
      await new Promise<void>((resolve) => {
        if (socket.destroyed) resolve();
        else socket.end(resolve);
      });
    });
    await Promise.allSettled(writes);
  }

  #accept(socket: Socket): void {
    if (this.#sockets.size >= MAX_CONNECTIONS) {
      socket.end(TOO_MANY_CONNECTIONS);
      return;
    }
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    const parser = new RequestParser(this.#maxBody);
    socket.on("data", (chunk: Buffer) => {
      try {
        for (const parsed of parser.push(chunk)) {
          if (parsed.kind === "continue") socket.write(formatResponse({ status: 100 }));
          else this.#enqueue(socket, parsed.request);
        }
      } catch (error) {
        if (!(error instanceof HttpError)) throw error;
        socket.write(formatResponse(httpErrorResponse(error)));
      }
    });
  }

  #enqueue(socket: Socket, request: Request): void {
    this.#turn = this.#turn.then(async () => {
      const response = await this.#answer(request);
      if (!socket.destroyed) socket.write(formatResponse(response));
    });
  }

  async #answer(request: Request): Promise<Response> {
    const log = (level: "info" | "error", message: string): void =>
      this.#logger.log(level, message, "fc_api");
    log("info", `The API server received a ${describe(request)}.`);
    let action: Action;
    try {
      action = route(request);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      log("error", error.message);
      return faultResponse(error);
    }
    try {
      const value = await this.#controller.handle(action);
      const deprecated = action.isDeprecated;
      const status = value === undefined ? "204 No Content" : "200 OK";
      log("info", `The request was executed successfully. Status code: ${status}.`);
      if (value === undefined) return { status: 204, deprecated };
      return { status: 200, body: JSON.stringify(value), deprecated };
    } catch (error) {
      const fault = error instanceof Fault ? error : new Fault(`Internal VMM error: ${String(error)}`);
      const status = fault.status === 413 ? "413 Payload too large" : "400 Bad Request";
      log("error", `Received Error. Status code: ${status}. Message: ${fault.message}`);
      return faultResponse(fault);
    }
  }
}

function faultResponse(fault: Fault): Response {
  return { status: fault.status, body: JSON.stringify({ fault_message: fault.message }) };
}

/** Metadata is not logged: it may hold secrets. */
function describe({ method, path, body }: Request): string {
  const name = method.charAt(0) + method.slice(1).toLowerCase();
  const target = `${name} request on ${JSON.stringify(path)}`;
  return body === undefined || path === "/mmds" ? target : `${target} with body ${JSON.stringify(body)}`;
}
