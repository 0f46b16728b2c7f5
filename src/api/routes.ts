import { Type } from "typebox";
import type { Host } from "../host/host.ts";
import { type App, errors } from "./app.ts";
import { addArtifactRoute } from "./artifact-route.ts";
import { addAuditRoutes } from "./audit-routes.ts";
import { addMachineRoutes } from "./machine-routes.ts";
import { addSnapshotRoutes } from "./snapshot-routes.ts";

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

  addMachineRoutes(app, host);
  addAuditRoutes(app, host);

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

  addSnapshotRoutes(app, host);
  addArtifactRoute(app, host);
}
