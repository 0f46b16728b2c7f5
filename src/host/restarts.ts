import { messageOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { MachineRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { restartAfter } from "./restart-policy.ts";
import { startMachine } from "./start.ts";
import { Trace } from "./trace.ts";

/** So that a clock that stepped back does not put a start off for good. */
const LONGEST_WAIT_MS = 60_000;

/**
 * Starts machines again that ended by themselves and whose policy says so, each at its time. What is to be started, and
 * when, is in the state: a daemon that starts again goes on with it. A stop or a delete ends it.
 */
export class Restarts {
  readonly #context: HostContext;
  readonly #timers = new Map<MachineId, NodeJS.Timeout>();
  readonly #planned = (): void => this.plan();
  #stopped = false;

  constructor(context: HostContext) {
    this.#context = context;
    context.restartWanted.on("wanted", this.#planned);
  }

  /** Sets a timer for each machine that is to be started again and has none. */
  plan(): void {
    if (this.#stopped) return;
    const { state, clock } = this.#context;
    const now = Date.parse(clock.now());
    for (const { id, restarts } of state.state.machines.values()) {
      if (restarts?.next_at === undefined || this.#timers.has(id)) continue;
      const waitMs = Math.min(Math.max(0, Date.parse(restarts.next_at) - now), LONGEST_WAIT_MS);
      this.#timers.set(id, setTimeout(() => void this.#start(id), waitMs).unref());
    }
  }

  /** No more starts. */
  stop(): void {
    this.#stopped = true;
    this.#context.restartWanted.off("wanted", this.#planned);
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  async #start(id: MachineId): Promise<void> {
    const { log, underWay } = this.#context;
    try {
      using _work = underWay.enter();
      await startMachine(this.#context, id, new Trace(log), isDue);
      log.info({ machine_id: id }, "a machine that had ended by itself was started again");
    } catch (error) {
      log.warn({ machine_id: id, reason: messageOf(error) }, "a machine could not be started again");
      await this.#putOff(id);
    } finally {
      this.#timers.delete(id);
      this.plan();
    }
  }

  /** The next try, later than the last; a machine that is gone, runs or was stopped meanwhile has none. */
  async #putOff(id: MachineId): Promise<void> {
    const { state, clock, machineLocks, log, underWay } = this.#context;
    using _work = underWay.enter();
    using _lock = await machineLocks.acquire(id);
    const record = state.state.machines.get(id);
    if (record === undefined || this.#stopped || !isDue(record)) return;
    const restarts = restartAfter(record.restarts?.count ?? 0, clock.now());
    try {
      await state.commit({ put: "machine", record: { ...record, restarts } });
    } catch (error) {
      log.error({ machine_id: id, reason: messageOf(error) }, "a start could not be put off");
    }
  }
}

/** True while the machine is to be started again. */
function isDue({ phase, restarts }: MachineRecord): boolean {
  return restarts?.next_at !== undefined && phase !== "running" && phase !== "starting";
}
