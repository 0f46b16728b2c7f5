import { totalmem } from "node:os";
import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";

const MIB = 1024 * 1024;

/** Guest memory promised on this host: machines that hold memory, by id. */
export class Admission {
  readonly limitMib: number;
  readonly totalMib: number;
  readonly #held = new Map<MachineId, number>();

  /** `overcommit` is the share of the host's memory that may be promised. */
  constructor(overcommit: number, totalBytes: number = totalmem()) {
    this.totalMib = Math.floor(totalBytes / MIB);
    this.limitMib = Math.floor((totalBytes / MIB) * overcommit);
  }

  /** MiB promised at the moment. */
  get committedMib(): number {
    let sum = 0;
    for (const mib of this.#held.values()) sum += mib;
    return sum;
  }

  /** Throws `host_full` when `memoryMib` is more than the host may promise now. */
  refuseTooMuch(memoryMib: number): void {
    const free = this.limitMib - this.committedMib;
    if (memoryMib > free) {
      throw new AppError(
        "host_full",
        `the host has ${free} MiB of guest memory left, and this machine wants ${memoryMib} MiB`,
        {
          details: { limit_mib: this.limitMib, committed_mib: this.committedMib, wanted_mib: memoryMib },
        },
      );
    }
  }

  /**
   * Promises `memoryMib` to the machine, in place of what it was promised before, if it was: a fork promises it to all
   * children before the first of them comes up. Throws `host_full` when that is more than the host may promise.
   */
  reserve(id: MachineId, memoryMib: number): void {
    this.refuseTooMuch(memoryMib - (this.#held.get(id) ?? 0));
    this.#held.set(id, memoryMib);
  }

  /** Counts a machine that runs already, whatever the limit says. */
  adopt(id: MachineId, memoryMib: number): void {
    this.#held.set(id, memoryMib);
  }

  release(id: MachineId): void {
    this.#held.delete(id);
  }
}
