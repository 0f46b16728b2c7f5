import type { MachineRecord } from "../model/records.ts";
import { backOffMs } from "./back-off.ts";

/** A machine that ran as long as this is taken to be well: what comes after it counts anew. */
const WELL_AFTER_MS = 10 * 60_000;

/** When a machine that ended by itself is started again, and how often it was then; undefined when it is not. */
export function nextRestart(
  { restart, restarts, started_at }: MachineRecord,
  phase: "stopped" | "failed",
  endedAt: string,
): MachineRecord["restarts"] {
  if (restart === undefined || (restart === "on-failure" && phase === "stopped")) return undefined;
  const ranMs = started_at === undefined ? 0 : Date.parse(endedAt) - Date.parse(started_at);
  return restartAfter(ranMs >= WELL_AFTER_MS ? 0 : (restarts?.count ?? 0), endedAt);
}

/** The start that follows the `count`th, at `now`. */
export function restartAfter(count: number, now: string): Required<NonNullable<MachineRecord["restarts"]>> {
  const next_at = new Date(Date.parse(now) + backOffMs(count + 1)).toISOString();
  return { count: count + 1, next_at };
}
