import { pino } from "pino";
import { makeServer } from "../../../src/api/server.ts";
import type { Host } from "../../../src/host/host.ts";
import { Trace } from "../../../src/host/trace.ts";

/** The API on a host of which only these calls are there. */
export async function apiOn(calls: Partial<Host>) {
  const log = pino({ level: "silent" });
  const host = { trace: () => new Trace(log), ...calls } as unknown as Host;
  const app = await makeServer(host, log);
  return { app, [Symbol.asyncDispose]: () => app.close() };
}
