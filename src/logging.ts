import { pino } from "pino";
import type { LogLevel } from "./settings.ts";

/** pino's levels as the priorities of syslog, which the journal reads from a line's `<N>` prefix (sd-daemon(3)). */
const PRIORITY: Readonly<Record<string, number>> = { "10": 7, "20": 7, "30": 6, "40": 4, "50": 3, "60": 2 };

/** A line with its priority in front, as the journal wants it. */
export function withPriority(line: string): string {
  const level = /"level":(\d+)/.exec(line)?.[1] ?? "30";
  return `<${PRIORITY[level] ?? 6}>${line}`;
}

/** The daemon's logger: one JSON line an event, written at once, to standard output. */
export function makeLog(level: LogLevel): pino.Logger {
  const destination = pino.destination({ fd: 1, sync: true });
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: "message",
      serializers: { err: pino.stdSerializers.errWithCause },
    },
    { write: (line: string) => destination.write(withPriority(line)) },
  );
}
