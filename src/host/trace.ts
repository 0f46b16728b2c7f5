import type { Log } from "../system/log.ts";

export interface TracedStep {
  readonly name: string;
  readonly ms: number;
}

/** What one request did and how long each step took: the source of `Server-Timing` and of the log's figures. */
export class Trace {
  readonly log: Log;
  readonly steps: TracedStep[] = [];

  constructor(log: Log) {
    this.log = log;
  }

  /** Runs `work` as the step `name`; the time counts when it fails, too. */
  async step<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
    const started = performance.now();
    try {
      return await work();
    } finally {
      this.steps.push({ name, ms: performance.now() - started });
    }
  }

  /** The value of a `Server-Timing` header, milliseconds as W3C asks. */
  serverTiming(): string {
    return this.steps.map(({ name, ms }) => `${name};dur=${ms.toFixed(1)}`).join(", ");
  }
}
