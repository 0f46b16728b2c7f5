import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";
import type { FastifyReply, FastifyRequest } from "fastify";
import { AppError, errnoOf } from "../contract/errors.ts";
import { toAnswer, toAppError } from "./errors.ts";

/** What Node's parser stumbled over, where there is more to say than that it did. */
const SENTENCES: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: "the request's headers are too large",
  ERR_HTTP_REQUEST_TIMEOUT: "the request did not arrive in time",
};

/** Requests of a connection that are not answered yet, and what came behind them that is none. */
interface UnderWay {
  readonly requests: Set<IncomingMessage>;
  malformed?: Error;
}

const connections = new WeakMap<Socket, UnderWay>();

/** True while a request that came whole has no answer yet. */
function isOwed({ requests }: UnderWay): boolean {
  return [...requests].some(({ complete }) => complete);
}

/**
 * What Node would do by itself, done as the contract says: an expectation that nobody knows is ignored, as it may be, and a
 * CONNECT is refused with an error in its body. Keeps count of the requests under way for `answerMalformed`.
 */
export function keepToContract(server: Server): void {
  server.on("request", (request, response) => {
    const { socket } = request;
    const underWay = connections.get(socket) ?? { requests: new Set() };
    connections.set(socket, underWay);
    underWay.requests.add(request);
    response.once("close", () => {
      underWay.requests.delete(request);
      if (underWay.malformed !== undefined) answerMalformed(underWay.malformed, socket);
    });
  });
  server.on("checkExpectation", (request, response) => server.emit("request", request, response));
  server.on("connect", (_request, socket) => answerMalformed(new Error("CONNECT"), socket as Socket));
}

/**
 * Answers bytes that never became a request, in the shape of every other error, and closes the connection. Requests before
 * them on the same connection are answered first: clients tell answers by their order.
 */
export function answerMalformed(error: Error, socket: Socket): void {
  const code = errnoOf(error) ?? "";
  if (code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const underWay = connections.get(socket);
  if (underWay !== undefined && isOwed(underWay)) {
    underWay.malformed = error;
    return;
  }
  const sentence = SENTENCES[code] ?? "the connection does not carry an HTTP request";
  const body = JSON.stringify(toAnswer(new AppError("bad_request", sentence)));
  socket.end(
    `HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    () => socket.destroy(),
  );
}

/** Answers what the router stumbled over before any route was found, such as a path that is wrongly encoded. */
export function answerUnroutable(error: Error, _request: FastifyRequest, reply: FastifyReply): void {
  const told = toAppError(error);
  void reply.code(told.status).send(toAnswer(told));
}
