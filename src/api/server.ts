import swagger from "@fastify/swagger";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import fastify, { type FastifyBaseLogger, LogController } from "fastify";
import { AuditItemSchema, AuditSchema, RepairedItemSchema, RepairSchema } from "../contract/audit.ts";
import { AppError } from "../contract/errors.ts";
import { ErrorAnswerSchema, HealthSchema, WarningSchema } from "../contract/health.ts";
import {
  EndedSchema,
  ForkedSchema,
  MachineAnswerSchema,
  MachineSchema,
  MachinesAnswerSchema,
  PortSchema,
  ReceiptEntrySchema,
} from "../contract/machine.ts";
import {
  CompatibilitySchema,
  SnapshotAnswerSchema,
  SnapshotArtifactSchema,
  SnapshotCreatedSchema,
  SnapshotSchema,
  SnapshotsAnswerSchema,
  UploadedSchema,
  VerdictReasonSchema,
} from "../contract/snapshot.ts";
import { StorageReportSchema } from "../contract/storage.ts";
import type { Host } from "../host/host.ts";
import { VERSION } from "../version.ts";
import type { App } from "./app.ts";
import { readBodies } from "./bodies.ts";
import { toAnswer, toAppError } from "./errors.ts";
import { answerMalformed, answerUnroutable, keepToContract } from "./malformed.ts";
import { addRoutes } from "./routes.ts";

const BODY_LIMIT_BYTES = 1024 * 1024;
/** How long a client may take to send its request; what the daemon takes to answer has no such limit. */
const REQUEST_TIMEOUT_MS = 30_000;

/** Once nothing is under way, what is left on a connection is a request that never came whole. */
const CLOSE_GRACE_MS = 1000;

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const;

/** The API over HTTP, ready to listen. Knows the contract and the host, nothing below. */
export async function makeServer(host: Host, log: FastifyBaseLogger): Promise<App> {
  const app = fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: "request_id" }),
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    // Node refuses such a request without a word; nothing here goes by the host.
    http: { requireHostHeader: false },
    exposeHeadRoutes: false,
    genReqId: () => crypto.randomUUID(),
    forceCloseConnections: "idle",
    return503OnClosing: false,
    // Beyond any id, so that one that is too long is refused like one that is wrong in another way.
    routerOptions: { maxParamLength: 64 * 1024 },
    clientErrorHandler: answerMalformed,
    frameworkErrors: answerUnroutable,
    // Silently turning "1" into 1 or dropping a field would do something else than the client asked for.
    ajv: {
      customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: false },
    },
  }).withTypeProvider<TypeBoxTypeProvider>();
  keepToContract(app.server);
  readBodies(app);

  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "computer-host",
        description: "One Linux host's Firecracker microVMs, over a Unix socket.",
        version: VERSION,
      },
    },
    refResolver: {
      buildLocalReference: ({ $id }, _base, _fragment, index) =>
        typeof $id === "string" ? $id : `def-${index}`,
    },
  });
  for (const schema of [
    ErrorAnswerSchema,
    WarningSchema,
    HealthSchema,
    PortSchema,
    ReceiptEntrySchema,
    EndedSchema,
    MachineSchema,
    MachineAnswerSchema,
    MachinesAnswerSchema,
    ForkedSchema,
    SnapshotArtifactSchema,
    SnapshotSchema,
    SnapshotCreatedSchema,
    SnapshotAnswerSchema,
    SnapshotsAnswerSchema,
    VerdictReasonSchema,
    CompatibilitySchema,
    UploadedSchema,
    StorageReportSchema,
    AuditItemSchema,
    AuditSchema,
    RepairedItemSchema,
    RepairSchema,
  ]) {
    app.addSchema(schema);
  }

  app.setErrorHandler(async (thrown, request, reply) => {
    const error = toAppError(thrown);
    if (error.status >= 500) request.log.error({ err: thrown, code: error.code }, "a request failed");
    const answer = toAnswer(error);
    return await reply
      .code(error.status)
      .send(
        error.code === "internal"
          ? { ...answer, details: { ...error.details, request_id: request.id } }
          : answer,
      );
  });
  app.setNotFoundHandler((request) => {
    throw new AppError(
      "route_not_found",
      `there is no ${request.method} ${request.url.replace(/\?.*$/s, "")}`,
    );
  });
  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id);
  });
  app.addHook("onSend", async (_request, reply) => {
    const steps = reply.getHeader("server-timing");
    const total = `total;dur=${reply.elapsedTime.toFixed(1)}`;
    reply.header("server-timing", typeof steps === "string" && steps !== "" ? `${steps}, ${total}` : total);
  });
  // Closing ends idle connections at once and waits for requests under way; the host has closed before, so these are few.
  app.addHook("preClose", async () => {
    setTimeout(() => app.server.closeAllConnections(), CLOSE_GRACE_MS).unref();
  });

  const offered = new Map<string, Set<string>>();
  app.addHook("onRoute", ({ method, url }) => {
    const methods = offered.get(url) ?? new Set();
    for (const name of [method].flat()) methods.add(name);
    offered.set(url, methods);
  });
  addRoutes(app, host);
  refuseOtherMethods(app, offered);
  await app.ready();
  return app;
}

/** A path that exists answers a method it does not offer with 405 and what it offers. */
function refuseOtherMethods(app: App, offered: ReadonlyMap<string, ReadonlySet<string>>): void {
  for (const [url, methods] of new Map(offered)) {
    const allow = [...methods].join(", ");
    app.route({
      method: METHODS.filter((method) => !methods.has(method)),
      url,
      schema: { hide: true },
      // Before the body is read: what it holds makes no difference.
      onRequest: async (request, reply) => {
        reply.header("allow", allow);
        throw new AppError("method_not_allowed", `${request.method} is not offered here; ${allow} is`, {
          details: { allow: [...methods] },
        });
      },
      handler: () => {
        throw new Error("not reached");
      },
    });
  }
}
