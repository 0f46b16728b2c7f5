/** The balloon of a running VM, by way of QEMU's monitor. */
import { Fault } from "./fault.ts";
import { isObject, type Qmp } from "./qmp.ts";
import type { Resources } from "./resources.ts";

const MIB = 1024 * 1024;
const PAGE = 4096;
const OBJECT = "/machine/peripheral/balloon";
/** The value by which QEMU says that the guest gave none is above this. */
const NO_STATISTIC = 2 ** 63;

const STATISTICS: Readonly<Record<string, string>> = {
  "stat-swap-in": "swap_in",
  "stat-swap-out": "swap_out",
  "stat-major-faults": "major_faults",
  "stat-minor-faults": "minor_faults",
  "stat-free-memory": "free_memory",
  "stat-total-memory": "total_memory",
  "stat-available-memory": "available_memory",
  "stat-disk-caches": "disk_caches",
  "stat-htlb-pgalloc": "hugetlb_allocations",
  "stat-htlb-pgfail": "hugetlb_failures",
};

export class BalloonDevice {
  readonly #qmp: Qmp;
  readonly #resources: Resources;

  constructor(qmp: Qmp, resources: Resources) {
    this.#qmp = qmp;
    this.#resources = resources;
  }

  /** Tells QEMU what is configured; does nothing for a VM without a balloon. */
  async setUp(): Promise<void> {
    const { balloon, machine } = this.#resources;
    if (balloon === undefined) return;
    await this.#qmp.execute("balloon", { value: (machine.mem_size_mib - balloon.amount_mib) * MIB });
    const value = balloon.stats_polling_interval_s;
    await this.#qmp.execute("qom-set", { path: OBJECT, property: "guest-stats-polling-interval", value });
  }

  /** Sets the target, in MiB. Throws Fault. */
  async resize(amountMib: number): Promise<void> {
    const { balloon, machine } = this.#resources;
    if (balloon === undefined) return;
    if (amountMib > machine.mem_size_mib) {
      throw new Fault(`Balloon update error: Balloon: Requested memory should be less than ${amountMib}MiB`);
    }
    this.#resources.balloon = { ...balloon, amount_mib: amountMib };
    await this.setUp();
  }

  /** Changes how often the guest is asked for statistics, in seconds. Throws Fault. */
  async poll(intervalS: number): Promise<void> {
    const { balloon } = this.#resources;
    if (balloon === undefined || intervalS === balloon.stats_polling_interval_s) return;
    if (intervalS === 0 || balloon.stats_polling_interval_s === 0) {
      throw new Fault(
        "Balloon update error: Balloon: Statistics cannot be enabled/disabled after activation.",
      );
    }
    this.#resources.balloon = { ...balloon, stats_polling_interval_s: intervalS };
    await this.setUp();
  }

  /** The latest statistics, in the fields of Firecracker's answer. Throws Fault. */
  async statistics(): Promise<Readonly<Record<string, number>>> {
    const { balloon, machine } = this.#resources;
    if (balloon === undefined || balloon.stats_polling_interval_s === 0) {
      throw new Fault("Internal VMM error: Balloon: Received stats query when stats are disabled.");
    }
    const memory = machine.mem_size_mib * MIB;
    const current = await this.#qmp.execute("query-balloon");
    const left = isObject(current) && typeof current["actual"] === "number" ? current["actual"] : memory;
    const answer: Record<string, number> = {
      target_pages: (balloon.amount_mib * MIB) / PAGE,
      actual_pages: (memory - left) / PAGE,
      target_mib: balloon.amount_mib,
      actual_mib: Math.floor((memory - left) / MIB),
    };
    const guest = await this.#qmp.execute("qom-get", { path: OBJECT, property: "guest-stats" });
    const stats = isObject(guest) && isObject(guest["stats"]) ? guest["stats"] : {};
    for (const [name, value] of Object.entries(stats)) {
      const field = STATISTICS[name];
      if (field !== undefined && typeof value === "number" && value < NO_STATISTIC) answer[field] = value;
    }
    return answer;
  }
}
