/** The log: one line an event, in Firecracker's format, to a file or to standard output. */
import { constants, openSync, writeSync } from "node:fs";

import type { LoggerConfig, LogLevel } from "./bodies.ts";

const STDOUT = 1;
const RANKS: Readonly<Record<LogLevel, number>> = { off: 0, error: 1, warn: 2, info: 3, debug: 4, trace: 5 };

export type LoggedLevel = Exclude<LogLevel, "off">;

export class Logger {
  #id = "anonymous-instance";
  #fd = STDOUT;
  #level: LogLevel = "info";
  #showLevel = false;
  #showOrigin = false;

  setInstance(id: string): void {
    this.#id = id;
  }

  /** Applies what is given and leaves the rest, but for the level, which goes back to Info. Throws the OS's error. */
  update(config: Omit<LoggerConfig, "module">): void {
    if (config.log_path !== null) {
      const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NONBLOCK;
      this.#fd = openSync(config.log_path, flags, 0o666);
    }
    this.#level = config.level ?? "info";
    this.#showLevel = config.show_level ?? this.#showLevel;
    this.#showOrigin = config.show_log_origin ?? this.#showOrigin;
  }

  log(level: LoggedLevel, message: string, thread: "main" | "fc_api" = "main"): void {
    if (RANKS[level] > RANKS[this.#level]) return;
    const shown = (this.#showLevel ? `:${level.toUpperCase()}` : "") + (this.#showOrigin ? origin() : "");
    try {
      writeSync(this.#fd, `${timestamp()} [${this.#id}:${thread}${shown}] ${message}\n`);
    } catch {
      // A log that can't be written must not end the guest.
    }
  }
}

/** `:file:line` of the code that logs, which is two calls up the stack. */
function origin(): string {
  const caller = new Error("origin").stack?.split("\n")[3] ?? "";
  return `:${/([^/(]+:\d+):\d+\)?$/.exec(caller)?.[1] ?? "?:0"}`;
}

/** Local time with nine digits after the second. */
function timestamp(): string {
  const now = new Date();
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000);
  return `${local.toISOString().slice(0, -1)}000000`;
}
