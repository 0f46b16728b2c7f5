import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ReceiptEntry } from "../../src/contract/machine.ts";
import { run } from "../../src/system/run.ts";
import type { BecomeJob } from "./become.ts";
import type { TestIdentity } from "./identity.ts";
import { IMAGE_DIR } from "./image.ts";
import type { TestSlot } from "./slot.ts";

const READY_TIMEOUT_MS = 90_000;

export interface GuestOptions {
  readonly slot: TestSlot;
  readonly image: string;
  readonly disk: string;
  readonly folder: string;
  readonly identity: TestIdentity;
  /** Other than the seed's own, to see it refused. */
  readonly seedSha256?: string;
  /** Without them the kernel finds no device. Default true. */
  readonly modules?: boolean;
}

let booted = 0;

/** One boot of an image in plain QEMU, without the daemon. Ends with its owner. */
export class TestGuest implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #consolePath: string;
  readonly #options: GuestOptions;
  #identity: TestIdentity;
  readonly #exited: Promise<unknown>;

  private constructor(child: ChildProcess, consolePath: string, options: GuestOptions) {
    this.#process = child;
    this.#consolePath = consolePath;
    this.#options = options;
    this.#identity = options.identity;
    this.#exited = once(child, "exit");
  }

  static async boot(options: GuestOptions): Promise<TestGuest> {
    booted += 1;
    const { slot, image, disk, folder, identity } = options;
    const file = (name: string) => join(folder, `${booted}.${name}`);
    const consolePath = file("console");
    const initrdPath = file("initrd");
    const parts = [join(IMAGE_DIR, "initrd.cpio")];
    if (options.modules !== false) parts.push(join(IMAGE_DIR, image, "modules.cpio"));
    await writeFile(initrdPath, Buffer.concat(await Promise.all(parts.map((part) => readFile(part)))));
    await writeFile(consolePath, "");
    const append = [
      "console=ttyS0 quiet reboot=t panic=-1 random.trust_cpu=on mitigations=off",
      // A busy host keeps the guest from measuring its own clock.
      `tsc=reliable tsc_early_khz=${hostTscKhz()} lpj=4000000 no_timer_check cryptomgr.notests`,
      "root=/dev/vda rw computer_host.seed=vdb",
      `computer_host.seed_digest=${options.seedSha256 ?? identity.seedSha256}`,
    ];
    const argv = slot.inside(
      [
        ["qemu-system-x86_64", "-M", "microvm,acpi=on,rtc=on", "-accel", "tcg,thread=multi", "-cpu", "max"],
        ["-m", "256", "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
        [
          "-serial",
          `file:${consolePath}`,
          "-kernel",
          join(IMAGE_DIR, image, "vmlinuz"),
          "-initrd",
          initrdPath,
        ],
        ["-append", append.join(" ")],
        ["-drive", `id=d,file=${disk},format=raw,if=none`, "-device", "virtio-blk-device,drive=d"],
        ["-drive", `id=s,file=${identity.seedPath},format=raw,if=none,readonly=on`],
        ["-device", "virtio-blk-device,drive=s"],
        ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-device,netdev=n"],
        ["-device", "virtio-rng-device"],
      ].flat(),
    );
    const [program, ...args] = argv;
    // `ip netns exec` replaces itself with QEMU: the child's pid is QEMU's.
    return new TestGuest(spawn(program, args, { stdio: "ignore" }), consolePath, options);
  }

  get ended(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  /** All that the guest has written to its serial console. */
  console(): string {
    return readFileSync(this.#consolePath, "utf8").replaceAll("\r", "");
  }

  /** Resolves when SSH answers; rejects with the console's tail when the guest ends or takes too long. */
  async ready(): Promise<void> {
    const limit = performance.now() + READY_TIMEOUT_MS;
    while (!(await this.#options.slot.sshAnswers())) {
      if (this.ended) throw new Error(`the guest ended before SSH answered:\n${this.#tail()}`);
      if (performance.now() > limit) throw new Error(`SSH did not answer in time:\n${this.#tail()}`);
      await sleep(200);
    }
  }

  /** Runs a shell command as root over SSH, with the host key checked; returns what it printed. */
  async ssh(command: string, keyPath = this.#identity.keyPath): Promise<string> {
    const options = ["BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=30", "StrictHostKeyChecking=yes"];
    options.push(`UserKnownHostsFile=${this.#identity.knownHostsPath}`);
    const argv = [
      "ssh",
      "-i",
      keyPath,
      ...options.flatMap((option) => ["-o", option]),
      "root@172.16.0.2",
      command,
    ];
    try {
      return (await run(this.#options.slot.inside(argv), { timeoutMs: 60_000 })).stdout.trim();
    } catch (cause) {
      throw new Error(`${String(cause)}\nThe console ends:\n${this.#tail()}`, { cause });
    }
  }

  /** Answers to several shell commands, in one login. */
  async ask<Name extends string>(commands: Readonly<Record<Name, string>>): Promise<Record<Name, string>> {
    const names = Object.keys(commands) as Name[];
    const answers = await this.ssh(
      names.map((name) => `(${commands[name]}) 2>&1; printf '\\036'`).join("\n"),
    );
    const texts = answers.split("\u001e").map((text) => text.trim());
    return Object.fromEntries(names.map((name, index) => [name, texts[index] ?? ""])) as Record<Name, string>;
  }

  /**
   * Has the guest room make another machine of this running one, as it does after a live restore, and wait until that
   * one answers with its new host key. Returns the receipt.
   */
  async become(identity: TestIdentity): Promise<readonly ReceiptEntry[]> {
    const { slot, folder } = this.#options;
    const job: BecomeJob = { folder, from: this.#identity, to: identity };
    const program = join(import.meta.dirname, "become.ts");
    const { stdout } = await run(slot.inside([process.execPath, program]), {
      input: JSON.stringify(job),
      timeoutMs: 60_000,
    });
    this.#identity = identity;
    return JSON.parse(stdout) as ReceiptEntry[];
  }

  /** Asks for a clean shutdown and waits for the VMM's end. */
  async reboot(): Promise<void> {
    // The connection breaks while the command runs: how ssh ends says nothing.
    await this.ssh("reboot").catch(() => {});
    await this.waitEnd(30_000);
  }

  /** Resolves when QEMU has ended; rejects after `timeoutMs` with the console's tail. */
  async waitEnd(timeoutMs: number): Promise<void> {
    if (this.ended) return;
    const timer = new AbortController();
    const late = sleep(timeoutMs, "late", { signal: timer.signal }).catch(() => "ended");
    const first = await Promise.race([this.#exited, late]);
    timer.abort();
    if (first === "late") throw new Error(`the guest did not end within ${timeoutMs} ms:\n${this.#tail()}`);
  }

  /** Ends it as a power cut would. */
  async kill(): Promise<void> {
    if (this.ended) return;
    this.#process.kill("SIGKILL");
    await this.#exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #tail(): string {
    return this.console().split("\n").slice(-15).join("\n");
  }
}

/** A disk of its own for a guest, sparse, as large as the image's or larger. */
export async function makeDisk(image: string, path: string, sizeMib?: number): Promise<string> {
  await run(["cp", "--reflink=auto", "--sparse=always", join(IMAGE_DIR, image, "rootfs.ext4"), path]);
  if (sizeMib !== undefined) await run(["truncate", "-s", `${sizeMib}M`, path]);
  return path;
}

/** What a snapshot does: a copy of a disk as it lies. */
export async function cloneDisk(from: string, to: string): Promise<string> {
  await copyFile(from, to);
  return to;
}

function hostTscKhz(): number {
  const mhz = /^cpu MHz\s*: ([\d.]+)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  if (mhz === undefined) throw new Error("/proc/cpuinfo does not tell the clock of this processor");
  return Math.round(Number(mhz) * 1000);
}
