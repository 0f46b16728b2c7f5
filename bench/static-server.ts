/**
 * What an answer of the daemon is held against: fastify with an answer of the same size, made beforehand.
 *
 * Usage: static-server.ts SOCKET BODY_FILE
 */
import { readFileSync } from "node:fs";
import fastify from "fastify";

const [socket = "", file = ""] = process.argv.slice(2);
const body = readFileSync(file, "utf8");
const server = fastify();
server.get("/", (_, reply) => reply.type("application/json").send(body));
await server.listen({ path: socket });
