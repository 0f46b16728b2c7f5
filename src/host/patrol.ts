import { messageOf } from "../contract/errors.ts";
import type { Mended } from "../model/inventory.ts";
import type { Log } from "../system/log.ts";
import { retryAbandoned } from "./abandoned.ts";
import { LogRounds } from "./bound-logs.ts";
import type { HostContext } from "./context.ts";
import { repair } from "./repair.ts";
import type { Restarts } from "./restarts.ts";
import { takeNote } from "./vmm-death.ts";

/** What is done now and then without being asked: a second look at each VMM, undos that failed, mending, bounding logs. */
export class Patrol {
  readonly #context: HostContext;
  readonly #logs: LogRounds;
  readonly #restarts: Restarts;
  #timer: NodeJS.Timeout | undefined;
  #turn: Promise<void> | undefined;
  /** What could not be mended the last time: told once. */
  #told: ReadonlySet<string> = new Set();

  constructor(context: HostContext, restarts: Restarts) {
    this.#context = context;
    this.#restarts = restarts;
    this.#logs = new LogRounds(context);
  }

  /** Begins with a look at everything, inside of all slots too: a start itself looks at what can be seen in no time. */
  start(intervalMs: number): void {
    this.#turnOver("all");
    this.#timer = setInterval(() => {
      this.#checkAlive();
      this.#restarts.plan();
      void this.#logs.turn();
      this.#turnOver("some");
    }, intervalMs).unref();
  }

  /** One that takes longer than the interval is not overtaken by the next. */
  #turnOver(look: "some" | "all"): void {
    this.#turn ??= this.#makeTurn(look).finally(() => {
      this.#turn = undefined;
    });
  }

  /** No more turns; waits for the one that is under way. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#turn;
  }

  async #makeTurn(look: "some" | "all"): Promise<void> {
    const { log } = this.#context;
    try {
      await retryAbandoned(this.#context);
      this.#told = logMended(log, await repair(this.#context, look), this.#told);
    } catch (error) {
      log.error({ reason: messageOf(error) }, "the host could not be looked at");
    }
  }

  /** A second look at what the watch on each VMM should have noticed already, and another try at what could not be recorded. */
  #checkAlive(): void {
    const { live, machineLocks } = this.#context;
    for (const [id, vmm] of live) {
      if (machineLocks.isHeld(id)) continue;
      void vmm.waitGone(0).then((gone) => {
        if (gone) takeNote(this.#context, id, vmm);
      });
    }
  }
}

/** Tells the log what was mended, and what could not be unless that was `told` before. Returns what is told by then. */
export function logMended(
  log: Log,
  mended: readonly Mended[],
  told: ReadonlySet<string> = new Set(),
): ReadonlySet<string> {
  const now = new Set<string>();
  for (const { resource, name, action, ok, reason } of mended) {
    if (ok) {
      log.warn({ resource, name, action }, "something was not as it should be, and was mended");
      continue;
    }
    const key = `${resource} ${name} ${reason}`;
    now.add(key);
    if (!told.has(key))
      log.error({ resource, name, action, reason }, "something is not as it should be, and was not mended");
  }
  return now;
}
