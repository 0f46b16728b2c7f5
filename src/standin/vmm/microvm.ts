/** A VM that has booted (or was loaded): QEMU, and what Firecracker's API can do to it. */
import { BalloonDevice } from "./balloon-device.ts";
import type { Drive, DriveUpdate, SnapshotCreate } from "./bodies.ts";
import { Fault, noDevice } from "./fault.ts";
import { statSync } from "node:fs";

import type { Accelerator } from "../shared/accelerator.ts";
import { driveFile, driveNode, driveOptions, qemuArguments, throttle } from "./qemu-arguments.ts";
import { QemuProcess, qemuWords } from "./qemu-process.ts";
import { isObject, QmpError, type QmpEvent } from "./qmp.ts";
import { checkDriveFile, type Resources } from "./resources.ts";
import type { SerialOutput } from "./serial-output.ts";
import { MemoryReceiver, writeStateFile } from "./snapshot-files.ts";

const MIB = 1024 * 1024;
const SECTOR = 512;
const MIGRATION_POLL_MS = 5;
const QUIT_TIMEOUT_MS = 2000;
/** How a VM ended, QEMU and all: its guest reset (which is how a Firecracker guest ends), or QEMU went away under it. */
export type VmEnd = { readonly kind: "reset" } | { readonly kind: "failed"; readonly words: string };

export type VmBoot =
  | {
      readonly from: "kernel";
      readonly kernel: string;
      readonly initrd: string | null;
      readonly commandLine: string;
    }
  | { readonly from: "snapshot"; readonly memoryFd: number };

export interface VmParts {
  readonly id: string;
  readonly accelerator: Accelerator;
  readonly resources: Resources;
  readonly serial: SerialOutput;
  readonly warn: (message: string) => void;
}

export class MicroVm {
  state: "Running" | "Paused";
  readonly ended: Promise<VmEnd>;
  readonly #parts: VmParts;
  readonly #qemu: QemuProcess;
  readonly #balloon: BalloonDevice;
  readonly #end = Promise.withResolvers<VmEnd>();
  #isHalted = false;
  #isReset = false;
  /** QEMU has handed its disks over at the end of a snapshot and wants to run before it makes another. */
  #isMigrated = false;
  #driveFiles = 0;

  private constructor(parts: VmParts, boot: VmBoot) {
    this.#parts = parts;
    this.state = boot.from === "kernel" ? "Running" : "Paused";
    this.ended = this.#end.promise;
    const { resources } = parts;
    const args = qemuArguments({
      id: parts.id,
      accelerator: parts.accelerator,
      config: resources.machine,
      balloon: resources.balloon,
      drives: resources.drives,
      entropy: resources.entropy,
      boot,
      networkInterfaces: resources.addressedInterfaces(),
    });
    const memoryFd = boot.from === "snapshot" ? boot.memoryFd : undefined;
    this.#qemu = QemuProcess.start(args, memoryFd, {
      onSerial: (chunk) => parts.serial.write(chunk),
      onEvent: (event) => this.#onEvent(event),
    });
    this.#balloon = new BalloonDevice(this.#qemu.qmp, resources);
    void this.#qemu.ended.then((end) => {
      this.#end.resolve(this.#isReset ? { kind: "reset" } : { kind: "failed", words: qemuWords(end) });
    });
  }

  /** Starts QEMU; when this returns the guest runs, or a loaded one stands still. Throws Error with QEMU's words. */
  static async start(parts: VmParts, boot: VmBoot): Promise<MicroVm> {
    const vm = new MicroVm(parts, boot);
    await vm.#qemu.connect();
    try {
      if (boot.from === "snapshot") await vm.#loaded();
      await vm.#balloon.setUp();
      if (boot.from === "kernel") await vm.#qemu.qmp.execute("cont");
    } catch (cause) {
      vm.#qemu.kill();
      const end = await vm.#qemu.ended;
      // Either QEMU ended by itself and said why, or it refused a command and was killed for it.
      const words = end.signal === null ? qemuWords(end) : String(cause);
      throw new Error(words, { cause });
    }
    return vm;
  }

  async pause(): Promise<void> {
    if (this.state === "Running" && !this.#isHalted) await this.#qemu.qmp.execute("stop");
    this.state = "Paused";
  }

  async resume(): Promise<void> {
    if (this.state === "Paused" && !this.#isHalted) await this.#qemu.qmp.execute("cont");
    this.#isMigrated = false;
    this.state = "Running";
  }

  /** Presses the keys. A guest without a keyboard driver doesn't notice. */
  async sendCtrlAltDel(): Promise<void> {
    const keys = ["ctrl", "alt", "delete"].map((key) => ({ type: "qcode", data: key }));
    await this.#qemu.qmp.execute("send-key", { keys });
  }

  writeSerial(chunk: Buffer): void {
    this.#qemu.writeSerial(chunk);
  }

  /** Writes both files of a full snapshot. The VM stays paused. Throws Fault. */
  async createSnapshot(config: SnapshotCreate): Promise<void> {
    if (this.state !== "Paused") {
      throw new Fault(
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running",
      );
    }
    if (config.snapshot_type === "Diff") {
      throw new Fault(
        "Create snapshot error: Cannot get dirty bitmap: the QEMU stand-in makes full snapshots only",
      );
    }
    const { resources, accelerator } = this.#parts;
    const pair = writeStateFile(config.snapshot_path, {
      accelerator,
      machine_config: resources.machine,
      drives: resources.drives,
      network_interfaces: resources.networkInterfaces,
      guest_macs: resources.addressedInterfaces().map((nic) => nic.guest_mac ?? ""),
      entropy: resources.entropy ?? null,
      balloon: resources.balloon ?? null,
      mmds_config: resources.mmdsConfig ?? null,
    });
    if (this.#isMigrated) {
      // QEMU refuses a second migration from where the first ended; the guest gets to run for a moment.
      await this.#qemu.qmp.execute("cont");
      await this.#qemu.qmp.execute("stop");
      this.#isMigrated = false;
    }
    const bytes = resources.machine.mem_size_mib * MIB;
    await using receiver = await MemoryReceiver.open(config.mem_file_path, pair, bytes);
    try {
      await this.#qemu.qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
      await this.#qemu.qmp.execute("migrate", { uri: receiver.uri });
      await this.#migrated();
    } catch (cause) {
      if (!(cause instanceof QmpError)) throw cause;
      throw new Fault(`Create snapshot error: Cannot save the microVM state: ${cause.message}`, { cause });
    }
    this.#isMigrated = true;
    await receiver.received;
  }

  /** The balloon; `what` starts the words if there is none. Throws Fault. */
  balloon(what = "Balloon update error"): BalloonDevice {
    if (this.#parts.resources.balloon === undefined) throw noDevice(what);
    return this.#balloon;
  }

  /** Changes a drive's file or its limits under a running guest. Throws Fault. */
  async updateDrive(update: DriveUpdate): Promise<void> {
    const { resources } = this.#parts;
    const failed = "Drive config error: Unable to patch the block device";
    const index = resources.drives.findIndex((drive) => drive.drive_id === update.drive_id);
    const drive = resources.drives[index];
    if (drive === undefined) throw noDevice(failed, " Please verify the request arguments.");
    const node = driveNode(index);
    if (update.path_on_host !== null) {
      const path = update.path_on_host;
      checkDriveFile(path, drive.is_read_only === true, (text) => {
        return `${failed}: Block: Virtio backend error: ${text} Please verify the request arguments.`;
      });
      await this.#swapDriveFile(node, path, drive);
    }
    // A bucket that is not given stays as it was.
    const limiter =
      update.rate_limiter === null
        ? drive.rate_limiter
        : {
            bandwidth: update.rate_limiter.bandwidth ?? drive.rate_limiter?.bandwidth ?? null,
            ops: update.rate_limiter.ops ?? drive.rate_limiter?.ops ?? null,
          };
    if (update.rate_limiter !== null) {
      const path = `/objects/${node}-limit`;
      await this.#qemu.qmp.execute("qom-set", { path, property: "limits", value: throttle(limiter) });
    }
    const path_on_host = update.path_on_host ?? drive.path_on_host;
    resources.drives = resources.drives.with(index, { ...drive, path_on_host, rate_limiter: limiter });
  }

  async #swapDriveFile(node: string, path: string, drive: Drive): Promise<void> {
    this.#driveFiles += 1;
    const file = `${node}-file${this.#driveFiles}`;
    const raw = { driver: "raw", "node-name": `${node}-raw`, file, ...driveOptions(drive) };
    await this.#qemu.qmp.execute("blockdev-add", driveFile(file, path, drive));
    await this.#qemu.qmp.execute("blockdev-reopen", { options: [raw] });
    // Tells the guest the new size. A read-only drive can't be resized, not even to what it is.
    if (drive.is_read_only !== true) {
      await this.#qemu.qmp.execute("block_resize", { "node-name": node, size: sectorBytes(path) });
    }
  }

  /** Waits until QEMU has read the whole snapshot. */
  async #loaded(): Promise<void> {
    for (;;) {
      const status = await this.#qemu.qmp.execute("query-status");
      if (isObject(status) && status["status"] !== "inmigrate") return;
      await sleep(MIGRATION_POLL_MS);
    }
  }

  /** Waits until QEMU has sent the whole snapshot. Throws QmpError if it could not. */
  async #migrated(): Promise<void> {
    for (;;) {
      const answer = await this.#qemu.qmp.execute("query-migrate");
      const status = isObject(answer) ? answer["status"] : undefined;
      if (status === "completed") return;
      if (status === "failed" || status === "cancelled") {
        const words = isObject(answer) ? answer["error-desc"] : undefined;
        throw new QmpError(typeof words === "string" ? words : "QEMU could not send its state");
      }
      await sleep(MIGRATION_POLL_MS);
    }
  }

  #onEvent({ event, data }: QmpEvent): void {
    if (event !== "SHUTDOWN") return;
    if (data["reason"] === "guest-shutdown") {
      this.#isHalted = true;
      this.#parts.warn("The guest powered itself off. There is no power management: it is halted, not gone.");
      return;
    }
    this.#isReset = true;
    this.#qemu.qmp.execute("quit").catch(() => undefined);
    setTimeout(() => this.#qemu.kill(), QUIT_TIMEOUT_MS).unref();
  }
}

/** The size of a file in whole sectors: what is beyond is not shown to guests. */
function sectorBytes(path: string): number {
  const { size } = statSync(path);
  return size - (size % SECTOR);
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
