import { Type } from "typebox";
import type { Host } from "../host/host.ts";
import { type App, errors } from "./app.ts";

/** What is on the host, and mending it. */
export function addAuditRoutes(app: App, host: Host): void {
  app.get(
    "/audit",
    {
      schema: {
        summary: "Everything on the host that is the daemon's, with its owner, or leaked, missing or altered",
        response: { 200: Type.Ref("Audit"), ...errors },
      },
    },
    () => host.audit(),
  );

  app.post(
    "/audit/repair",
    {
      schema: {
        summary: "Mend what is not as it should be, around machines that run",
        response: { 200: Type.Ref("Repair"), ...errors },
      },
    },
    () => host.repair(),
  );
}
