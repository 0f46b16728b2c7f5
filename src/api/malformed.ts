import type { Socket } from "node:net";
import type { FastifyReply, FastifyRequest } from "fastify";
import { AppError, errnoOf } from "../contract/errors.ts";
import { toAnswer, toAppError } from "./errors.ts";

/** What Node's parser stumbled over, where there is more to say than that it did. */
const SENTENCES: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: "the request's headers are too large",
  ERR_HTTP_REQUEST_TIMEOUT: "the request did not arrive in time",
};

/** Answers bytes that never became a request, in the shape of every other error, and closes the connection. */
export function answerMalformed(error: Error, socket: Socket): void {
  const code = errnoOf(error) ?? "";
  if (code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
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
