import type { FastifyReply, FastifyRequest } from "fastify";
import type { Host } from "../host/host.ts";
import type { Trace } from "../host/trace.ts";

/** Runs one operation with a trace: its steps become the answer's `Server-Timing` and the log's one line. */
export async function traced<Result>(
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
