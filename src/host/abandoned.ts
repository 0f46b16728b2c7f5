import { messageOf } from "../contract/errors.ts";
import type { OperationRecord } from "../model/records.ts";
import { backOffMs } from "./back-off.ts";
import type { HostContext } from "./context.ts";
import { acquireAll } from "./locks.ts";
import { takeUp } from "./take-up.ts";

/** How often something was tried that has failed so far. */
export interface Attempts {
  readonly count: number;
  /** When it is tried again, on the monotonic clock. */
  readonly nextMs: number;
  readonly reason: string;
}

/**
 * What is wrong with an operation that is in the state though nobody works on it: it failed, and so did its undo.
 * Undefined while somebody does.
 */
export function problemOf(context: HostContext, operation: OperationRecord): string | undefined {
  if (!isAbandoned(context, operation)) return undefined;
  const tried = context.attempts.get(operation.id);
  const why = tried === undefined ? "" : `: ${tried.reason}`;
  return `it could neither be ended nor undone yet, and is tried again${why}`;
}

/** True when nobody works on it: whoever does holds the locks, and began no later than it was written down. */
function isAbandoned(
  { machineLocks, snapshotLocks, underWay }: HostContext,
  { machine_id, snapshot_id, children = [], started_at }: OperationRecord,
): boolean {
  const machines = [machine_id, ...children].filter((id) => id !== undefined);
  if (machines.some((id) => machineLocks.isHeld(id))) return false;
  if (snapshot_id !== undefined && snapshotLocks.isHeld(snapshot_id)) return false;
  // A fetch lets go of its lock for a moment before the restore that it is for takes it.
  return machines.length > 0 || Date.parse(started_at) < underWay.quiet;
}

/** Takes up operations whose undo failed, each as often as its back-off allows. A failure is in the log, and kept. */
export async function retryAbandoned(context: HostContext): Promise<void> {
  const { state, attempts, clock } = context;
  for (const id of attempts.keys()) if (!state.state.operations.has(id)) attempts.delete(id);
  for (const operation of state.state.operations.values()) {
    const isDue = (attempts.get(operation.id)?.nextMs ?? 0) <= clock.monotonicMs();
    if (isDue && isAbandoned(context, operation)) await retry(context, operation);
  }
}

async function retry(context: HostContext, operation: OperationRecord): Promise<void> {
  const { state, attempts, clock, log, machineLocks, snapshotLocks } = context;
  const { id, machine_id, snapshot_id, children = [] } = operation;
  const machines = [machine_id, ...children].filter((key) => key !== undefined);
  const never = new AbortController().signal;
  using _machines = await acquireAll(machineLocks, machines, never);
  using _snapshot = await acquireAll(snapshotLocks, snapshot_id === undefined ? [] : [snapshot_id], never);
  if (state.state.operations.get(id) !== operation) return;
  using _work = context.underWay.enter();
  try {
    const direction = await takeUp(context, operation);
    attempts.delete(id);
    log.info({ operation: id, direction }, "an operation that could not be undone before was taken up");
  } catch (error) {
    const count = (attempts.get(id)?.count ?? 0) + 1;
    const reason = messageOf(error);
    attempts.set(id, { count, nextMs: clock.monotonicMs() + backOffMs(count), reason });
    log.warn({ operation: id, attempts: count, reason }, "an operation could still not be undone");
  }
}
