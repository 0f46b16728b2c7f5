import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  RawServerDefault,
} from "fastify";
import type { IncomingMessage, ServerResponse } from "node:http";
import { Type } from "typebox";
import { IdSchema, type MachineId, machineId, snapshotId } from "../contract/ids.ts";
import { CreateMachineSchema, ResizeMachineSchema } from "../contract/machine.ts";
import { CreateSnapshotSchema, RestoreSnapshotSchema } from "../contract/snapshot.ts";
import type { Host } from "../host/host.ts";
import type { Trace } from "../host/trace.ts";

export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

const PathId = Type.Object({ id: IdSchema });
const Nothing = Type.Null({ description: "no body" });

/** Every status that a call can answer beside its own, with the one shape of errors. */
const errors = { "4xx": Type.Ref("Error"), "5xx": Type.Ref("Error") };

/** The calls of the contract, each in a few lines: validated by its schema, done by the host. */
export function addRoutes(app: App, host: Host): void {
  app.get(
    "/health",
    {
      schema: {
        summary: "The daemon, its VMM and its host",
        response: { 200: Type.Ref("Health"), ...errors },
      },
    },
    () => host.health(),
  );

  app.post(
    "/machines",
    {
      schema: {
        summary: "Create a machine and wait until it is ready",
        body: CreateMachineSchema,
        response: { 200: Type.Ref("MachineAnswer"), 201: Type.Ref("MachineAnswer"), ...errors },
      },
    },
    async (request, reply) => {
      const { machine, created } = await traced(
        request,
        reply,
        host,
        { operation: "create", machine_id: request.body.machine_id },
        (trace) => host.create(request.body, trace),
      );
      return reply.code(created ? 201 : 200).send({ machine });
    },
  );

  app.get(
    "/machines",
    { schema: { summary: "All machines", response: { 200: Type.Ref("MachinesAnswer"), ...errors } } },
    () => ({ machines: host.listMachines() }),
  );

  app.get(
    "/machines/:id",
    {
      schema: {
        summary: "One machine",
        params: PathId,
        response: { 200: Type.Ref("MachineAnswer"), ...errors },
      },
    },
    (request) => ({ machine: host.getMachine(machineId(request.params.id)) }),
  );

  app.delete(
    "/machines/:id",
    {
      schema: {
        summary: "Delete a machine; also when it is already gone",
        params: PathId,
        response: { 204: Nothing, ...errors },
      },
    },
    async (request, reply) => {
      const id = machineId(request.params.id);
      await traced(request, reply, host, { operation: "delete", machine_id: id }, (trace) =>
        host.delete(id, trace),
      );
      return reply.code(204).send(null);
    },
  );

  app.post(
    "/machines/:id/stop",
    {
      schema: {
        summary: "Stop a machine; its disk and identity stay",
        params: PathId,
        response: { 204: Nothing, ...errors },
      },
    },
    async (request, reply) => {
      const id = machineId(request.params.id);
      await traced(request, reply, host, { operation: "stop", machine_id: id }, (trace) =>
        host.stop(id, trace),
      );
      return reply.code(204).send(null);
    },
  );

  const turns = [
    {
      name: "start",
      summary: "Start a stopped machine and wait until it is ready",
      act: (id: MachineId, trace: Trace) => host.start(id, trace),
    },
    {
      name: "pause",
      summary: "Make the guest stand still; its memory stays",
      act: (id: MachineId, trace: Trace) => host.pause(id, trace),
    },
    {
      name: "resume",
      summary: "Let a paused guest go on",
      act: (id: MachineId, trace: Trace) => host.resume(id, trace),
    },
  ] as const;
  for (const { name, summary, act } of turns) {
    app.post(
      `/machines/:id/${name}`,
      { schema: { summary, params: PathId, response: { 200: Type.Ref("MachineAnswer"), ...errors } } },
      async (request, reply) => {
        const id = machineId(request.params.id);
        const fields = { operation: name, machine_id: id };
        return { machine: await traced(request, reply, host, fields, (trace) => act(id, trace)) };
      },
    );
  }

  app.post(
    "/machines/:id/resize",
    {
      schema: {
        summary: "Give a stopped machine more disk, another memory or other vCPUs from its next start on",
        params: PathId,
        body: ResizeMachineSchema,
        response: { 200: Type.Ref("MachineAnswer"), ...errors },
      },
    },
    async (request, reply) => {
      const id = machineId(request.params.id);
      const machine = await traced(request, reply, host, { operation: "resize", machine_id: id }, (trace) =>
        host.resize(id, request.body, trace),
      );
      return { machine };
    },
  );

  app.get(
    "/storage/report",
    {
      schema: {
        summary: "What disks, snapshots and images take up",
        response: { 200: Type.Ref("StorageReport"), ...errors },
      },
    },
    () => host.storageReport(),
  );

  app.post(
    "/machines/:id/snapshots",
    {
      schema: {
        summary: "Snapshot a machine's disk",
        params: PathId,
        body: CreateSnapshotSchema,
        response: { 201: Type.Ref("SnapshotCreated"), ...errors },
      },
    },
    async (request, reply) => {
      const id = machineId(request.params.id);
      const fields = { operation: "snapshot", machine_id: id, snapshot_id: request.body.snapshot_id };
      const snapshot = await traced(request, reply, host, fields, (trace) =>
        host.snapshot(id, request.body, trace),
      );
      return reply.code(201).send({ snapshot, artifacts: snapshot.artifacts });
    },
  );

  app.get(
    "/machines/:id/snapshots",
    {
      schema: {
        summary: "Snapshots of a machine",
        params: PathId,
        response: { 200: Type.Ref("SnapshotsAnswer"), ...errors },
      },
    },
    (request) => ({ snapshots: host.listSnapshots(machineId(request.params.id)) }),
  );

  app.get(
    "/snapshots/:id",
    {
      schema: {
        summary: "One snapshot",
        params: PathId,
        response: { 200: Type.Ref("SnapshotAnswer"), ...errors },
      },
    },
    (request) => ({ snapshot: host.getSnapshot(snapshotId(request.params.id)) }),
  );

  app.delete(
    "/snapshots/:id",
    {
      schema: {
        summary: "Delete a snapshot; also when it is already gone",
        params: PathId,
        response: { 204: Nothing, ...errors },
      },
    },
    async (request, reply) => {
      const id = snapshotId(request.params.id);
      await traced(request, reply, host, { operation: "delete-snapshot", snapshot_id: id }, (trace) =>
        host.deleteSnapshot(id, trace),
      );
      return reply.code(204).send(null);
    },
  );

  app.post(
    "/snapshots/:id/restore",
    {
      schema: {
        summary: "Make a machine from a snapshot and wait until it is ready",
        params: PathId,
        body: RestoreSnapshotSchema,
        response: { 200: Type.Ref("MachineAnswer"), 201: Type.Ref("MachineAnswer"), ...errors },
      },
    },
    async (request, reply) => {
      const id = snapshotId(request.params.id);
      const fields = { operation: "restore", machine_id: request.body.machine_id, snapshot_id: id };
      const { machine, created } = await traced(request, reply, host, fields, (trace) =>
        host.restore(id, request.body, trace),
      );
      return reply.code(created ? 201 : 200).send({ machine });
    },
  );
}

/** Runs one operation with a trace: its steps become the answer's `Server-Timing` and the log's one line. */
async function traced<Result>(
  request: FastifyRequest,
  reply: FastifyReply,
  host: Host,
  fields: object,
  work: (trace: Trace) => Promise<Result>,
): Promise<Result> {
  const log = request.log.child(fields);
  const trace = host.trace(log);
  const started = performance.now();
  let outcome: object = { outcome: "done" };
  try {
    return await work(trace);
  } catch (error) {
    outcome = { outcome: "failed", err: error };
    throw error;
  } finally {
    const steps = Object.fromEntries(trace.steps.map(({ name, ms }) => [name, Math.round(ms * 10) / 10]));
    log.info({ ...outcome, duration_ms: Math.round(performance.now() - started), steps }, "operation");
    reply.header("server-timing", trace.serverTiming());
  }
}
