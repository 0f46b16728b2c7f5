import { Type } from "typebox";
import { machineId, snapshotId } from "../contract/ids.ts";
import { CreateSnapshotSchema, RestoreSnapshotSchema, UploadSnapshotSchema } from "../contract/snapshot.ts";
import type { Host } from "../host/host.ts";
import { type App, errors, Nothing, PathId } from "./app.ts";
import { traced } from "./traced.ts";

/** An upload names a presigned URL, which can be long, for each of thousands of parts. */
const UPLOAD_BODY_LIMIT_BYTES = 32 * 1024 * 1024;

/** Snapshots, and what is made from them. Their files are a route of their own. */
export function addSnapshotRoutes(app: App, host: Host): void {
  app.post(
    "/machines/:id/snapshots",
    {
      schema: {
        summary: "Snapshot a machine's disk and, if asked to, its memory",
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
        summary: "Make a machine from a snapshot, awake if it holds memory, and wait until it is ready",
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

  app.get(
    "/snapshots/:id/compatibility",
    {
      schema: {
        summary: "Whether a snapshot can be restored here: live, from its disk or not at all, and why",
        params: PathId,
        response: { 200: Type.Ref("Compatibility"), ...errors },
      },
    },
    (request) => host.compatibility(snapshotId(request.params.id)),
  );

  app.post(
    "/snapshots/:id/upload",
    {
      bodyLimit: UPLOAD_BODY_LIMIT_BYTES,
      schema: {
        summary: "Send a snapshot's artifacts to a store, by multipart uploads that the client began there",
        params: PathId,
        body: UploadSnapshotSchema,
        response: { 200: Type.Ref("Uploaded"), ...errors },
      },
    },
    async (request, reply) => {
      const id = snapshotId(request.params.id);
      return await traced(request, reply, host, { operation: "upload", snapshot_id: id }, (trace) =>
        host.upload(id, request.body, trace),
      );
    },
  );
}
