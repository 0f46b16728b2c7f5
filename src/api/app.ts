import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from "fastify";
import type { IncomingMessage, ServerResponse } from "node:http";
import { Type } from "typebox";
import { IdSchema } from "../contract/ids.ts";

export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

export const PathId = Type.Object({ id: IdSchema });
export const Nothing = Type.Null({ description: "no body" });

/** Every status that a call can answer beside its own, with the one shape of errors. */
export const errors = { "4xx": Type.Ref("Error"), "5xx": Type.Ref("Error") };
