import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { RunError, type RunResult, run } from "../../src/system/run.ts";
import { packPayload, type RealPair } from "./payload.ts";
import { Vm } from "./vm.ts";

/** With memory snapshots the host holds half a dozen guests, and their memory in its page cache. */
const MEMORY_MIB = 6144;
const SHORT_MEMORY_MIB = 3072;
const BOOT_TIMEOUT_MS = 180_000;
const BUILD_TIMEOUT_MS = 900_000;

export interface LabOptions {
  /** Where the guest images were built. */
  readonly imageDir: string;
  readonly pair?: RealPair | undefined;
}

/** Options of a command in the lab: an emulated processor takes its time. */
export interface CommandOptions {
  /** Default 60,000. */
  readonly timeoutMs?: number;
  readonly okCodes?: readonly number[];
  readonly input?: string;
}

/** The host in the VM answers no more although its QEMU runs: an emulator's fault, not that of anything tried in it. */
export class LabFroze extends Error {}

/** A whole small host of its own: Debian with systemd, cgroup v2 and KVM, in a VM. `/lab` is what it was given. */
export class Lab implements AsyncDisposable {
  readonly folder: string;
  readonly #vm: Vm;
  readonly #undo: AsyncDisposableStack;
  readonly #ssh: readonly string[];

  constructor(folder: string, vm: Vm, port: number, undo: AsyncDisposableStack) {
    this.folder = folder;
    this.#vm = vm;
    this.#undo = undo;
    this.#ssh = [
      ["-p", String(port), "-i", join(folder, "login_key"), "-o", "BatchMode=yes"],
      ["-o", `UserKnownHostsFile=${join(folder, "known_hosts")}`, "-o", "StrictHostKeyChecking=yes"],
      // One handshake for all commands: it is what costs an emulated processor most.
      [
        "-o",
        "ControlMaster=auto",
        "-o",
        `ControlPath=${join(folder, "ssh.sock")}`,
        "-o",
        "ControlPersist=600",
      ],
      // A host that froze is told from one that is slow: the connection ends after a minute and a half of silence.
      ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=6"],
      ["-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR", "root@127.0.0.1"],
    ].flat();
  }

  /** Runs a shell command as root on the host in the VM. Throws `RunError` when it ends with another code than 0. */
  run(command: string, options: CommandOptions = {}): Promise<RunResult> {
    return run(["ssh", ...this.#ssh, command], { timeoutMs: 60_000, ...options });
  }

  /** What a command printed, trimmed. */
  async print(command: string, options: CommandOptions = {}): Promise<string> {
    return (await this.run(command, options)).stdout.trim();
  }

  /** Throws `LabFroze` when QEMU runs, and yet no new connection is answered in three tries of a minute each. */
  async assertAwake(): Promise<void> {
    for (let attempt = 0; attempt < 3; attempt += 1) {
      if (this.#vm.ended !== undefined) return;
      const alone = ["-o", "ControlPath=none", ...this.#ssh];
      try {
        await run(["ssh", ...alone, "true"], { timeoutMs: 60_000 });
        return;
      } catch (error) {
        if (!(error instanceof RunError)) throw error;
      }
    }
    if (this.#vm.ended !== undefined) return;
    throw new LabFroze(
      `the lab's VM answers no more:\n${await this.#vm.whereabouts()}\n${await this.lastWords()}`,
    );
  }

  /** The end of the VM's console. */
  async lastWords(): Promise<string> {
    return (await readFile(this.#vm.console, "latin1").catch(() => "")).slice(-4000);
  }

  /** Waits until sshd answers. Throws with the console's end when it does not, or when the VM ends. */
  async waitBooted(): Promise<void> {
    const end = performance.now() + BOOT_TIMEOUT_MS;
    for (;;) {
      try {
        await this.run("true", { timeoutMs: 30_000 });
        return;
      } catch (cause) {
        if (!(cause instanceof RunError)) throw cause;
        const why = this.#vm.ended ?? (performance.now() > end ? "no SSH in time" : undefined);
        if (why !== undefined)
          throw new Error(`the lab did not boot (${why}):\n${await this.lastWords()}`, { cause });
      }
      await sleep(500);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

/**
 * Boots the lab with the daemon, an image and the real pair (if one is given) in it, under /lab. Builds the lab's
 * disk if it is not there. With KEEP=1 the console and the logs of QEMU are kept.
 */
export async function startLab({ imageDir, pair }: LabOptions): Promise<Lab> {
  await using undo = new AsyncDisposableStack();
  const build = await run([join(import.meta.dirname, "build.sh")], { timeoutMs: BUILD_TIMEOUT_MS });
  const folder = await mkdtemp("/var/tmp/computer-host-lab-");
  undo.defer(async () => {
    if (process.env["KEEP"] === "1") process.stderr.write(`kept: ${folder}\n`);
    else await rm(folder, { recursive: true, force: true });
  });
  const payload = await makePayload(folder, imageDir, pair);
  const memoryMib = pair === undefined ? SHORT_MEMORY_MIB : MEMORY_MIB;
  const vm = undo.use(await Vm.start({ lab: build.stdout.trim(), payload, folder, memoryMib }));
  const port = await vm.sshPort();
  const hostKey = await readFile(join(folder, "host_key.pub"), "utf8");
  await writeFile(join(folder, "known_hosts"), `[127.0.0.1]:${port} ${hostKey}`);
  const connection = join(folder, "ssh.sock");
  undo.defer(async () => {
    await run(["ssh", "-O", "exit", "-o", `ControlPath=${connection}`, "lab"], { okCodes: [0, 255] });
  });
  const lab = new Lab(folder, vm, port, undo.move());
  try {
    await lab.waitBooted();
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
  return lab;
}

/** Keys of this run and what the VM is given; returns the path of the second disk. */
async function makePayload(folder: string, imageDir: string, pair: RealPair | undefined): Promise<string> {
  for (const name of ["host_key", "login_key"])
    await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", join(folder, name)]);
  const scratch = join(folder, "payload");
  await mkdir(join(scratch, "keys"), { recursive: true });
  for (const name of ["host_key", "login_key.pub"])
    await writeFile(join(scratch, "keys", name), await readFile(join(folder, name)), { mode: 0o600 });
  const image = join(folder, "payload.img");
  await packPayload(image, scratch, imageDir, pair);
  await rm(scratch, { recursive: true });
  return image;
}
