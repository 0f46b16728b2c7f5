/** A VM that has booted (or was loaded): QEMU, and what Firecracker's API can do to it. */
import { BalloonDevice } from "./balloon-device.ts";
import type { Drive, DriveUpdate, SnapshotCreate } from "./bodies.ts";
import { Fault, noDevice } from "./fault.ts";
import { statSync } from "node:fs";

import type { Accelerator } from "../shared/accelerator.ts";
import { errnoOf } from "../shared/os-error.ts";
import type { GuestMemory } from "./guest-memory.ts";
import { fillFromFile, writeMemoryFile } from "./memory-file.ts";
import { DEVICES_FD, driveFile, driveNode, driveOptions, qemuArguments, throttle } from "./qemu-arguments.ts";
import { QemuProcess, qemuWords } from "./qemu-process.ts";
import { isObject, QmpError, type QmpEvent } from "./qmp.ts";
import { checkDriveFile, mergeLimiter, type Resources } from "./resources.ts";
import type { SerialOutput } from "./serial-output.ts";
import { writeStateFile } from "./state-file.ts";

const MIB = 1024 * 1024;
const SECTOR = 512;
const LOAD_POLL_MS = 2;
const EFBIG = 27;
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
  | { readonly from: "snapshot"; readonly devicesFd: number; readonly memoryFd: number };

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
    const devicesFd = boot.from === "snapshot" ? boot.devicesFd : undefined;
    this.#qemu = QemuProcess.start(args, devicesFd, {
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
      if (boot.from === "snapshot") await vm.#load(boot.memoryFd);
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

  /** Writes both files of a snapshot. The VM stays paused. Throws Fault. */
  async createSnapshot(config: SnapshotCreate): Promise<void> {
    if (this.state !== "Paused") {
      throw new Fault(
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running",
      );
    }
    const { resources, accelerator } = this.#parts;
    const state = {
      accelerator,
      machine_config: resources.machine,
      boot_source: resources.bootSource ?? null,
      drives: resources.drives,
      network_interfaces: resources.networkInterfaces,
      guest_macs: resources.addressedInterfaces().map((nic) => nic.guest_mac ?? ""),
      entropy: resources.entropy ?? null,
      balloon: resources.balloon ?? null,
      mmds_config: resources.mmdsConfig ?? null,
    };
    try {
      await writeStateFile(config.snapshot_path, state, async (path) => await this.#saveDevices(path));
      using memory = await this.#openMemory();
      writeMemoryFile(config.mem_file_path, memory, config.snapshot_type);
    } catch (error) {
      // A file grew beyond the limit. SIGXFSZ came with the error and is about to end this program: no answer.
      if (error instanceof Error && errnoOf(error.cause) === EFBIG) await new Promise(() => undefined);
      throw error;
    }
  }

  async #saveDevices(filename: string): Promise<void> {
    try {
      // Made for Xen, it does just this: the devices without the memory, and QEMU stands as it stood.
      await this.#qemu.qmp.execute("xen-save-devices-state", { filename, live: false });
    } catch (cause) {
      if (!(cause instanceof QmpError)) throw cause;
      throw new Fault(`Create snapshot error: Cannot save the microVM state: ${cause.message}`, { cause });
    }
  }

  async #openMemory(): Promise<GuestMemory> {
    return await this.#qemu.openMemory(this.#parts.resources.machine.mem_size_mib * MIB);
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
    if (update.path_on_host === null && update.rate_limiter === null) {
      // The real one takes this for something that only another kind of drive can do.
      throw new Fault(
        `${failed}: Block: Running method expected different backend. Please verify the request arguments.`,
      );
    }
    const node = driveNode(index);
    if (update.path_on_host !== null) {
      const path = update.path_on_host;
      checkDriveFile(path, drive.is_read_only === true, (text) => {
        return `${failed}: Block: Virtio backend error: ${text} Please verify the request arguments.`;
      });
      await this.#swapDriveFile(node, path, drive);
    }
    const limiter = mergeLimiter(drive.rate_limiter, update.rate_limiter);
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

  /** Fills the memory, then has QEMU read the devices, and waits until it has. */
  async #load(memoryFd: number): Promise<void> {
    {
      using memory = await this.#openMemory();
      fillFromFile(memoryFd, memory);
    }
    await this.#qemu.qmp.execute("migrate-incoming", { uri: `fd:${DEVICES_FD}` });
    for (;;) {
      const status = await this.#qemu.qmp.execute("query-status");
      if (isObject(status) && status["status"] !== "inmigrate") return;
      await sleep(LOAD_POLL_MS);
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
