import { spawn, type ChildProcessByStdio } from "node:child_process";
import { existsSync } from "node:fs";
import type { Readable } from "node:stream";
import { call, expectDone, type Answer } from "./api.ts";
import { pair } from "./pair.ts";
import { expectAllGone, family, kill } from "./processes.ts";
import { Console, tinyGuest, type TinyGuestMode } from "./tiny-guest.ts";
import { waitFor } from "./wait.ts";
import { WorkDir } from "./workdir.ts";

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface VmmOptions {
  /** Arguments beside --api-sock. */
  args?: readonly string[];
  /** Without it `--api-sock` is given and waited for. */
  withoutApi?: boolean;
  /** The path of a network namespace to run in. */
  netns?: string;
  /** Files that several VMMs share; by default each has its own folder. */
  dir?: WorkDir;
  socketName?: string;
}

/** A VMM that is not jailed. When its scope ends it is killed, and everything it started must end with it. */
export class Vmm implements AsyncDisposable {
  readonly dir: WorkDir;
  readonly socket: string;
  readonly console: Console;
  readonly consolePath: string;
  readonly #ownsDir: boolean;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #exit: Promise<Exit>;
  #output = "";

  private constructor(options: VmmOptions) {
    this.#ownsDir = options.dir === undefined;
    this.dir = options.dir ?? new WorkDir();
    const name = options.socketName ?? "api";
    this.socket = this.dir.file(`${name}.sock`);
    this.consolePath = this.dir.file(`${name}.console`);
    this.console = new Console(this.consolePath);
    const argv = [pair.firecracker, ...(options.withoutApi ? [] : ["--api-sock", this.socket])];
    argv.push(...(options.args ?? []));
    if (options.netns !== undefined) argv.unshift("nsenter", `--net=${options.netns}`);
    this.#child = spawn(argv[0] ?? "", argv.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on("data", (chunk: Buffer) => (this.#output += chunk.toString()));
    }
    this.#exit = new Promise((resolve, reject) => {
      this.#child.on("error", reject);
      this.#child.on("close", (code, signal) => resolve({ code, signal }));
    });
    // A failed spawn is told by whoever awaits the exit.
    this.#exit.catch(() => undefined);
  }

  /** Starts a VMM and waits until its API answers. */
  static async start(options: VmmOptions = {}): Promise<Vmm> {
    const vmm = new Vmm(options);
    if (options.withoutApi) return vmm;
    try {
      await waitFor(
        () => `the API socket; the VMM said: ${vmm.output}`,
        async () => {
          if (vmm.#child.exitCode !== null || vmm.#child.signalCode !== null) {
            throw new Error(`the VMM ended before it listened: ${vmm.output}`);
          }
          return existsSync(vmm.socket) && (await vmm.call("GET", "/").catch(() => undefined));
        },
      );
    } catch (error) {
      await vmm[Symbol.asyncDispose]();
      throw error;
    }
    return vmm;
  }

  /** A VMM that runs the tiny guest, with its console in a file. */
  static async boot(mode: TinyGuestMode, options: VmmOptions = {}): Promise<Vmm> {
    const vmm = await Vmm.start(options);
    try {
      await vmm.configureTinyGuest(mode);
      expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
      await vmm.console.waitForText("ready\n");
    } catch (error) {
      await vmm[Symbol.asyncDispose]();
      throw error;
    }
    return vmm;
  }

  async configureTinyGuest(mode: TinyGuestMode, bootSource: Record<string, string> = {}): Promise<void> {
    const source = { kernel_image_path: tinyGuest(), boot_args: `tiny=${mode}`, ...bootSource };
    expectDone(await this.call("PUT", "/boot-source", source));
    expectDone(await this.call("PUT", "/serial", { serial_out_path: this.consolePath }));
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error("the VMM did not start");
    return pid;
  }

  /** What the VMM wrote to stdout and stderr. */
  get output(): string {
    return this.#output;
  }

  async call(method: string, path: string, body?: unknown): Promise<Answer> {
    return call(this.socket, method, path, body);
  }

  /** The `state` that GET / tells. */
  async state(): Promise<unknown> {
    const answer = await this.call("GET", "/");
    return (JSON.parse(answer.text) as Record<string, unknown>)["state"];
  }

  /** How the VMM ended by itself. Throws if it has not in time. */
  async exit(timeoutMs = 15_000): Promise<Exit> {
    let ended: Exit | undefined;
    const watch = this.#exit.then((exit) => (ended = exit));
    await waitFor("the end of the VMM", () => ended, timeoutMs);
    return watch;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { pid } = this.#child;
    if (pid !== undefined) {
      const all = family(pid);
      kill(pid);
      await this.exit(10_000);
      await expectAllGone(all);
    }
    if (this.#ownsDir) this.dir[Symbol.dispose]();
  }
}

/** Runs the program to its end, which must come by itself. */
export async function runVmm(args: readonly string[]): Promise<Exit & { output: string }> {
  await using vmm = await Vmm.start({ args, withoutApi: true });
  const exit = await vmm.exit();
  return { ...exit, output: vmm.output };
}
