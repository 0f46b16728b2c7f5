import { Type } from "typebox";
import { type MachineId, machineId } from "../contract/ids.ts";
import { CreateMachineSchema, ForkMachineSchema, ResizeMachineSchema } from "../contract/machine.ts";
import type { Host } from "../host/host.ts";
import type { Trace } from "../host/trace.ts";
import { type App, errors, Nothing, PathId } from "./app.ts";
import { traced } from "./traced.ts";

/** Everything about machines, except their snapshots. */
export function addMachineRoutes(app: App, host: Host): void {
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
        summary:
          "Give a machine more disk; a stopped one also another memory or other vCPUs, from its next start on",
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

  app.post(
    "/machines/:id/fork",
    {
      schema: {
        summary: "Make one or several machines that go on where this one stands, all or none",
        params: PathId,
        body: ForkMachineSchema,
        response: { 200: Type.Ref("Forked"), 201: Type.Ref("Forked"), ...errors },
      },
    },
    async (request, reply) => {
      const id = machineId(request.params.id);
      const { machines, created } = await traced(
        request,
        reply,
        host,
        { operation: "fork", machine_id: id },
        (trace) => host.fork(id, request.body, trace),
      );
      return reply.code(created ? 201 : 200).send({ machines });
    },
  );
}
