/** The metrics file: a line of JSON now and then. Only what the stand-in really counts is in it. */
import { constants, openSync, writeSync } from "node:fs";

import { osErrorText } from "../shared/os-error.ts";
import { Fault } from "./fault.ts";
import type { SerialCounts } from "./serial-output.ts";

const PERIOD_MS = 60_000;
const FAILED = "Metrics error: Cannot initialize the metrics system due to bad user input";

export class Metrics {
  readonly #counts: () => SerialCounts;
  #fd: number | undefined;

  constructor(counts: () => SerialCounts) {
    this.#counts = counts;
  }

  /** Opens the file; it can't be changed afterwards. Throws Fault. */
  configure(path: string): void {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NONBLOCK, 0o666);
    } catch (cause) {
      throw new Fault(`${FAILED}: ${osErrorText(cause)}`, { cause });
    }
    if (this.#fd !== undefined) throw new Fault(`${FAILED}: Reinitialization of metrics not allowed.`);
    this.#fd = fd;
    setInterval(() => this.flush(), PERIOD_MS).unref();
  }

  /** Writes a line, if there is a file. Throws Fault. */
  flush(): void {
    if (this.#fd === undefined) return;
    const { written, dropped } = this.#counts();
    const uart = { write_count: written, rate_limiter_dropped_bytes: dropped };
    try {
      writeSync(this.#fd, `${JSON.stringify({ utc_timestamp_ms: Date.now(), uart })}\n`);
    } catch (cause) {
      throw new Fault(`Internal VMM error: Metrics error: ${osErrorText(cause)}`, { cause });
    }
  }
}
