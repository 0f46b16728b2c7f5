/**
 * A guest's memory, seen from outside of the QEMU that holds it: through /proc, as the parent of a process of the same
 * user may. So it is written to files, and filled from them, in the layout that Firecracker's files have.
 */
import { closeSync, constants, openSync, readSync } from "node:fs";

import { readWhole, writeWhole } from "../shared/whole-io.ts";

export const PAGE = 4096;
const ENTRY = 8;
/** The two top bits of a page's entry in /proc/<pid>/pagemap: it is in memory, or in swap. */
const BACKED = 0xc0;

export class GuestMemory implements Disposable {
  readonly bytes: number;
  readonly #address: number;
  readonly #memoryFd: number;
  readonly #pagemapFd: number;

  /** `address`: where in the process `pid` the first of the guest's `bytes` lies. Throws the OS's error. */
  constructor(pid: number, address: number, bytes: number) {
    this.bytes = bytes;
    this.#address = address;
    this.#memoryFd = openSync(`/proc/${pid}/mem`, constants.O_RDWR);
    try {
      this.#pagemapFd = openSync(`/proc/${pid}/pagemap`, constants.O_RDONLY);
    } catch (error) {
      closeSync(this.#memoryFd);
      throw error;
    }
  }

  /** Fills `into` with what lies at `offset`. */
  read(offset: number, into: Buffer): void {
    readWhole(this.#memoryFd, into, this.#address + offset);
  }

  /** Puts `from` at `offset`. */
  write(offset: number, from: Buffer): void {
    writeWhole(this.#memoryFd, from, this.#address + offset);
  }

  /** False when no page of this part was ever touched, so that all of it reads as zeros. Both in whole pages. */
  isTouched(offset: number, length: number): boolean {
    const entries = Buffer.alloc((length / PAGE) * ENTRY);
    const at = ((this.#address + offset) / PAGE) * ENTRY;
    const got = readSync(this.#pagemapFd, entries, 0, entries.length, at);
    if (got < entries.length) return true;
    for (let end = ENTRY - 1; end < got; end += ENTRY) if (((entries[end] ?? 0) & BACKED) !== 0) return true;
    return false;
  }

  [Symbol.dispose](): void {
    closeSync(this.#memoryFd);
    closeSync(this.#pagemapFd);
  }
}
