/**
 * The pipe that carries the guest's console. Node connects its children by Unix sockets, and those hold no more
 * than a few hundred writes of one byte, which is how QEMU's serial port writes; what comes while this process
 * waits for a processor would be lost. A pipe holds 64 KiB however it is written.
 */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { constants, openSync, unlinkSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";

export interface ConsolePipe {
  /** For QEMU's standard output. The caller closes it. */
  readonly writeFd: number;
  /** Settles when all writers are gone and everything was read. */
  readonly drained: Promise<void>;
}

/** Makes a pipe by way of a named one, the only kind that Node can get at. Its name is gone when this returns. */
export function openConsolePipe(onData: (chunk: Buffer) => void): ConsolePipe {
  const path = makeFifo();
  try {
    const readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writeFd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    const reader = new Socket({ fd: readFd, readable: true, writable: false });
    reader.on("data", onData);
    const drained = new Promise<void>((resolve) => {
      reader.on("close", () => resolve());
      reader.on("error", () => resolve());
    });
    return { writeFd, drained };
  } finally {
    unlinkSync(path);
  }
}

function makeFifo(): string {
  let last: unknown;
  for (const dir of ["/run", "/tmp"]) {
    const path = join(dir, `.console-${randomUUID().slice(0, 8)}`);
    try {
      execFileSync("/usr/bin/mkfifo", ["-m", "0600", path], { stdio: "ignore" });
      return path;
    } catch (error) {
      last = error;
    }
  }
  throw last;
}
