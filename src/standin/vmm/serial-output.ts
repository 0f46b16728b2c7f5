/**
 * Where the guest's serial console goes. QEMU would write to a file by itself, but without a limit: what passes
 * here goes through a token bucket, and what is over it is dropped, so that a flooding guest fills no disk.
 */
import { constants, openSync, writeSync } from "node:fs";

import type { Serial } from "./bodies.ts";
import { type TokenBucket, tokenBucketOf } from "./token-bucket.ts";

const STDOUT = 1;

/** Bytes of console output, since the start. */
export interface SerialCounts {
  readonly written: number;
  readonly dropped: number;
}

export class SerialOutput {
  readonly #fd: number;
  readonly #bucket: TokenBucket | undefined;
  #written = 0;
  #dropped = 0;

  /** Opens the file as Firecracker does: made if missing, never cut, written from its start. Throws the OS's error. */
  constructor(config: Serial) {
    this.#fd =
      config.serial_out_path === null
        ? STDOUT
        : openSync(
            config.serial_out_path,
            constants.O_RDWR | constants.O_CREAT | constants.O_NONBLOCK,
            0o666,
          );
    this.#bucket = tokenBucketOf(config.rate_limiter, () => performance.now());
  }

  get counts(): SerialCounts {
    return { written: this.#written, dropped: this.#dropped };
  }

  write(chunk: Buffer): void {
    const allowed = this.#bucket === undefined ? chunk.length : this.#bucket.take(chunk.length);
    let written = 0;
    try {
      while (written < allowed) written += writeSync(this.#fd, chunk, written, allowed - written);
    } catch {
      // A full disk, a pipe that nobody reads, a closed standard output: the console is lost, the guest goes on.
    }
    this.#written += written;
    this.#dropped += chunk.length - written;
  }
}
