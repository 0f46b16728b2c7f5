import { spawn, type ChildProcessByStdio } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import type { Readable } from "node:stream";
import { call, type Answer } from "./api.ts";
import { pair } from "./pair.ts";
import { expectAllGone, family, kill, processesOfUid } from "./processes.ts";
import { Console, tinyGuest } from "./tiny-guest.ts";
import type { Exit } from "./vmm.ts";
import { waitFor } from "./wait.ts";
import { WorkDir } from "./workdir.ts";

export interface JailOptions {
  /** Arguments of the jailer beside id, exec-file, uid, gid and chroot-base-dir. */
  args?: readonly string[];
  /** Arguments of the VMM, after `--`. */
  vmmArgs?: readonly string[];
  /** To put a value other than the sound one: a bad one, or another jail's. Null leaves the flag out. */
  flags?: Readonly<Record<string, string | null>>;
}

/** A jail that is made, looked at and removed by one test. */
export class Jail implements AsyncDisposable {
  readonly base = new WorkDir();
  readonly id = `jail-${randomBytes(4).toString("hex")}`;
  readonly uid = randomInt(300_000, 400_000);
  readonly gid = this.uid + 100_000;
  readonly #started: ChildProcessByStdio<null, Readable, Readable>[] = [];
  #output = "";

  get execFolder(): string {
    return this.base.file(pair.execName);
  }

  get root(): string {
    return this.base.file(pair.execName, this.id, "root");
  }

  get socket(): string {
    return this.inside("/run/firecracker.socket");
  }

  get pidFile(): string {
    return this.inside(`/${pair.execName}.pid`);
  }

  get output(): string {
    return this.#output;
  }

  /** The host's path of a path that the VMM uses. */
  inside(path: string): string {
    return `${this.root}${path}`;
  }

  /** Puts a copy into the jail before or after it starts, owned by the jail's uid. Returns the VMM's path. */
  stage(file: string, name = basename(file)): string {
    mkdirSync(this.root, { recursive: true });
    copyFileSync(file, this.inside(`/${name}`));
    chownSync(this.inside(`/${name}`), this.uid, this.gid);
    chmodSync(this.inside(`/${name}`), 0o600);
    return `/${name}`;
  }

  /** Runs the jailer and does not wait. */
  spawn(options: JailOptions = {}): Promise<Exit> {
    const flags = {
      id: this.id,
      "exec-file": pair.firecracker,
      uid: String(this.uid),
      gid: String(this.gid),
      "chroot-base-dir": this.base.path,
      ...options.flags,
    };
    const argv = Object.entries(flags).flatMap(([name, value]) =>
      value === null ? [] : [`--${name}`, value],
    );
    argv.push(...(options.args ?? []));
    if (options.vmmArgs !== undefined) argv.push("--", ...options.vmmArgs);
    const child = spawn(pair.jailer, argv, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, CONFORMANCE_SECRET: "do not leak me" },
    });
    this.#started.push(child);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => (this.#output += chunk.toString()));
    }
    return new Promise((resolve, reject) => {
      child.on("error", reject);
      // "close" also waits for the pipes: a daemon must not hold on to its caller's.
      child.on("close", (code, signal) => resolve({ code, signal }));
    });
  }

  /** Runs the jailer and waits until it and whoever holds its pipes are gone, which must be soon. */
  async run(options: JailOptions = {}): Promise<Exit> {
    return this.ended(this.spawn(options));
  }

  /** How what spawn() started ended. Throws if it has not in time. */
  async ended(exit: Promise<Exit>, timeoutMs = 15_000): Promise<Exit> {
    let known: Exit | undefined;
    const watch = exit.then((value) => (known = value));
    await waitFor(
      () => `the end of the jailer; it said: ${this.output}`,
      () => known,
      timeoutMs,
    );
    return watch;
  }

  /** Starts a daemonized VMM in the jail and waits for its pid file and its API. */
  async start(options: JailOptions = {}): Promise<void> {
    const args = ["--daemonize", "--new-pid-ns", ...(options.args ?? [])];
    const exit = await this.run({ ...options, args });
    if (exit.code !== 0) throw new Error(`the jailer ended with ${exit.code}: ${this.output}`);
    await this.waitForApi();
  }

  async waitForApi(): Promise<void> {
    await waitFor(
      () => `the pid file and the API; the jailer said: ${this.output}`,
      async () =>
        existsSync(this.pidFile) &&
        readFileSync(this.pidFile, "utf8") !== "" &&
        existsSync(this.socket) &&
        (await this.call("GET", "/").catch(() => undefined)),
    );
  }

  /** The tiny guest from inside the jail, running; returns its console. */
  async boot(mode: string): Promise<Console> {
    const kernel_image_path = this.stage(tinyGuest());
    for (const [path, body] of [
      ["/boot-source", { kernel_image_path, boot_args: `tiny=${mode}` }],
      ["/serial", { serial_out_path: "/console" }],
      ["/actions", { action_type: "InstanceStart" }],
    ] as const) {
      const answer = await this.call("PUT", path, body);
      if (answer.status !== 204) throw new Error(`PUT ${path}: ${answer.status} ${answer.text}`);
    }
    const console = new Console(this.inside("/console"));
    await console.waitForText("ready\n");
    return console;
  }

  async call(method: string, path: string, body?: unknown): Promise<Answer> {
    return call(this.socket, method, path, body);
  }

  /** What the pid file says. Throws if it is not there. */
  get pid(): number {
    return Number(readFileSync(this.pidFile, "utf8"));
  }

  /** Kills the VMM by its pid file only, as the daemon does, and expects everything to end with it. */
  async killVmm(): Promise<void> {
    const all = new Set([...family(this.pid), ...processesOfUid(this.uid)]);
    kill(this.pid);
    await expectAllGone([...all]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (existsSync(this.pidFile)) await this.killVmm();
    // A jailer that came to no pid file has left nothing behind either.
    const children = this.#started.flatMap(({ pid }) => (pid === undefined ? [] : family(pid)));
    await expectAllGone([...children, ...processesOfUid(this.uid)]);
    this.base[Symbol.dispose]();
  }
}
