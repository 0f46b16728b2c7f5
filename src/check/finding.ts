/** `FAIL`: the daemon cannot start, or makes no machines. `warn`: it can, and production wants it otherwise. */
export type Level = "ok" | "warn" | "FAIL";

/** One thing that was looked at: how it is and, unless it is fine, what to do. */
export interface Finding {
  readonly what: string;
  readonly level: Level;
  readonly text: string;
}

export function ok(what: string, text: string): Finding {
  return { what, level: "ok", text };
}

export function warn(what: string, text: string): Finding {
  return { what, level: "warn", text };
}

export function fail(what: string, text: string): Finding {
  return { what, level: "FAIL", text };
}
