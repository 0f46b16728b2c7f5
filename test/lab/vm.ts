import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { tscKhzFromCpuinfo } from "../../src/standin/vmm/kernel-arguments.ts";

/** What the VM is started from. */
export interface VmFiles {
  /** Folder with vmlinuz, initrd.cpio and root.img, which is left as it is. */
  readonly lab: string;
  /** Filesystem that becomes the second disk, read-only. */
  readonly payload: string;
  /** Folder for its console, its sockets and what it writes. */
  readonly folder: string;
  /** Of the host in the VM. */
  readonly memoryMib: number;
}

/**
 * One: with two, QEMU 7.2 translates code that the other processor is patching, and keeps the old translation. Linux
 * patches its scheduler with each first and last KVM guest, and once in some 30 guests a processor then met a breakpoint
 * that was gone, for ever, with the run queue's lock held.
 */
const PROCESSORS = 1;

/** A host in QEMU, with emulated AMD virtualisation: a guest of it can run guests under KVM. */
export class Vm implements AsyncDisposable {
  readonly console: string;
  readonly #qemu: ChildProcess;
  readonly #monitor: string;

  private constructor(qemu: ChildProcess, folder: string) {
    this.#qemu = qemu;
    this.#monitor = join(folder, "qmp.sock");
    this.console = join(folder, "console.log");
  }

  static async start({ lab, payload, folder, memoryMib }: VmFiles): Promise<Vm> {
    const log = openSync(join(folder, "qemu.log"), "w");
    // The VM must not outlive a test that was killed: QEMU gets SIGKILL when its parent ends.
    const qemu = spawn(
      "setpriv",
      [
        ["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"],
        ["-M", "microvm,acpi=on,rtc=on", "-accel", "tcg,thread=multi", "-cpu", "max"],
        ["-m", String(memoryMib), "-smp", String(PROCESSORS), "-display", "none"],
        ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
        ["-serial", `file:${join(folder, "console.log")}`],
        ["-qmp", `unix:${join(folder, "qmp.sock")},server=on,wait=off`],
        ["-kernel", join(lab, "vmlinuz"), "-initrd", join(lab, "initrd.cpio")],
        ["-append", await kernelArguments()],
        ["-drive", `id=root,file=${join(lab, "root.img")},format=raw,if=none,snapshot=on,cache=unsafe`],
        ["-device", "virtio-blk-device,drive=root"],
        ["-drive", `id=payload,file=${payload},format=raw,if=none,readonly=on`],
        ["-device", "virtio-blk-device,drive=payload"],
        // Nothing leaves the VM; only this machine's loopback reaches its sshd, at a port that the kernel chooses.
        ["-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"],
        ["-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"],
      ].flat(),
      // What the VM writes to its root disk goes to a nameless file in TMPDIR.
      { stdio: ["ignore", log, log], env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", TMPDIR: folder } },
    );
    const vm = new Vm(qemu, folder);
    await once(qemu, "spawn");
    return vm;
  }

  /** How QEMU ended, or undefined while it runs. */
  get ended(): string | undefined {
    const { exitCode, signalCode } = this.#qemu;
    return exitCode === null && signalCode === null ? undefined : `QEMU ended with ${exitCode ?? signalCode}`;
  }

  /** The port of the loopback that leads to the VM's sshd. Throws when QEMU does not tell within ten seconds. */
  async sshPort(): Promise<number> {
    for (let attempt = 0; attempt < 100; attempt += 1) {
      if (this.ended !== undefined) throw new Error(this.ended);
      const answer = await askMonitor(this.#monitor, "info usernet").catch(() => "");
      const port = /HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(answer)?.[1];
      if (port !== undefined) return Number(port);
      await sleep(100);
    }
    throw new Error("QEMU does not tell the port that it forwards");
  }

  /** Where its processors are, looked at twice, a second apart: what is left to know of a host that answers no more. */
  async whereabouts(): Promise<string> {
    const look = async (): Promise<string> => {
      const registers = await askMonitor(this.#monitor, "info registers -a").catch(String);
      return (registers.match(/CPU#\d+|RIP=\w+ RFL=.*/g) ?? [registers.slice(0, 500)]).join("\n");
    };
    const first = await look();
    await sleep(1000);
    return `${first}\nand a second later\n${await look()}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.ended !== undefined) return;
    const exit = once(this.#qemu, "exit");
    this.#qemu.kill("SIGKILL");
    await exit;
  }
}

/**
 * On a busy machine a kernel under TCG gets lost when it measures its clocks against each other: it is told instead.
 * Without mitigations and self-tests the emulated processor has less to do.
 */
async function kernelArguments(): Promise<string> {
  const tscKhz = tscKhzFromCpuinfo(await readFile("/proc/cpuinfo", "latin1"));
  const tsc = tscKhz === undefined ? [] : [`tsc_early_khz=${tscKhz}`, "lpj=4000000"];
  return [
    ["console=ttyS0", "quiet", "reboot=t", "panic=-1", "root=/dev/vda", "rw", "net.ifnames=0"],
    ["random.trust_cpu=on", "mitigations=off", "tsc=reliable", ...tsc, "no_timer_check", "cryptomgr.notests"],
    "systemd.show_status=false",
  ]
    .flat()
    .join(" ");
}

/** One command of QEMU's human monitor, through QMP: a line of JSON each way. */
async function askMonitor(path: string, command: string): Promise<string> {
  const socket = createConnection(path);
  // A monitor that hangs tells nothing, and holds nobody up.
  socket.setTimeout(10_000, () => socket.destroy(new Error("QEMU's monitor does not answer")));
  try {
    await once(socket, "connect");
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    await lines.next();
    for (const request of [
      { execute: "qmp_capabilities" },
      { execute: "human-monitor-command", arguments: { "command-line": command } },
    ])
      socket.write(`${JSON.stringify(request)}\n`);
    await lines.next();
    const answer: unknown = JSON.parse((await lines.next()).value ?? "{}");
    return typeof answer === "object" && answer !== null && "return" in answer ? String(answer.return) : "";
  } finally {
    socket.destroy();
  }
}
