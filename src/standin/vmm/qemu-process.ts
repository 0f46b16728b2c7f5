/** One QEMU, from its start to its end. It never outlives this process. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync } from "node:fs";
import type { Duplex } from "node:stream";

import { openConsolePipe } from "./console-pipe.ts";
import { GuestMemory } from "./guest-memory.ts";
import { DEVICES_FD, QMP_FD } from "./qemu-arguments.ts";
import { Qmp, type QmpEvent } from "./qmp.ts";

const QEMU = "/usr/bin/qemu-system-x86_64";
const STDERR_LIMIT = 4096;

/**
 * The kernel kills QEMU when its parent dies. A parent that was dead before that was asked for is noticed by
 * looking at who the parent is afterwards.
 */
const GUARD = '[ "$PPID" = "$1" ] || exit 1; shift; exec "$@"';

export interface QemuEnd {
  /** Null if a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last of what it said. */
  readonly stderr: string;
}

export interface QemuHooks {
  readonly onSerial: (chunk: Buffer) => void;
  readonly onEvent: (event: QmpEvent) => void;
}

export class QemuProcess {
  readonly qmp: Qmp;
  /** Settles when QEMU has ended and its console was read to the end. Never rejects. */
  readonly ended: Promise<QemuEnd>;
  readonly #child: ChildProcess;
  #stderr = "";

  private constructor(child: ChildProcess, hooks: QemuHooks, drained: Promise<void>) {
    this.#child = child;
    this.qmp = new Qmp(socketOf(child, QMP_FD), hooks.onEvent);
    // Input that comes when QEMU is gone is lost.
    child.stdin?.on("error", () => undefined);
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-STDERR_LIMIT);
    });
    this.ended = new Promise((resolve) => {
      child.on("error", (error) => resolve({ code: 1, signal: null, stderr: error.message }));
      child.on("close", (code, signal) => {
        void drained.then(() => resolve({ code, signal, stderr: this.#stderr.trim() }));
      });
    });
  }

  /** Starts QEMU. `devicesFd` is handed to it as the file that holds a snapshot's devices. */
  static start(args: readonly string[], devicesFd: number | undefined, hooks: QemuHooks): QemuProcess {
    const guarded = ["/bin/sh", "-c", GUARD, "sh", String(process.pid), QEMU, ...args];
    const consolePipe = openConsolePipe(hooks.onSerial);
    try {
      const child = spawn("/usr/bin/setpriv", ["--pdeathsig", "KILL", "--", ...guarded], {
        stdio: ["pipe", consolePipe.writeFd, "pipe", "pipe", devicesFd ?? "ignore"],
        env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
      });
      return new QemuProcess(child, hooks, consolePipe.drained);
    } finally {
      closeSync(consolePipe.writeFd);
    }
  }

  /** Waits until QEMU is ready for commands. Throws with its own words if it ends instead. */
  async connect(): Promise<void> {
    const end = this.ended.then((ended) => {
      throw new Error(qemuWords(ended));
    });
    await Promise.race([this.qmp.connect(), end]).catch(async (error: unknown) => {
      this.kill();
      const ended = await this.ended;
      throw new Error(qemuWords(ended), { cause: error });
    });
  }

  /** The guest's memory of `bytes` in this QEMU. Throws Error. */
  async openMemory(bytes: number): Promise<GuestMemory> {
    const { pid } = this.#child;
    const answer = await this.qmp.execute("human-monitor-command", { "command-line": "gpa2hva 0" });
    const address = /^Host virtual address for 0x0 \(.*\) is 0x([0-9a-f]+)/.exec(String(answer))?.[1];
    if (pid === undefined || address === undefined)
      throw new Error(`QEMU hides its memory: ${String(answer)}`);
    return new GuestMemory(pid, Number.parseInt(address, 16), bytes);
  }

  writeSerial(chunk: Buffer): void {
    this.#child.stdin?.write(chunk);
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

/** Why QEMU ended, in its own words where it had any, without its name in front. */
export function qemuWords(end: QemuEnd): string {
  const words = end.stderr
    .split("\n")
    .map((line) => line.replace(/^qemu-system-x86_64: /, ""))
    .filter((line) => line !== "" && !line.startsWith("warning:"));
  return words.join("; ") || `QEMU ended with ${end.signal ?? `code ${end.code}`}`;
}

function socketOf(child: ChildProcess, fd: number): Duplex {
  const stream = child.stdio[fd];
  if (stream === null || stream === undefined || typeof stream === "string" || !("write" in stream)) {
    throw new Error(`no socket at ${fd}`);
  }
  return stream as Duplex;
}

if (DEVICES_FD !== QMP_FD + 1) throw new Error("the devices' descriptor must come after the monitor's");
