/** What each action may do in which state. Before the boot it shapes the VM, afterwards it acts on it. */
import { type Accelerator, readRecord } from "../shared/accelerator.ts";
import { osErrorText } from "../shared/os-error.ts";
import { VERSION } from "../shared/version.ts";
import { type Action, type Handlers, handlerOf } from "./actions.ts";
import type { LoggerConfig, SnapshotLoad } from "./bodies.ts";
import { planBoot } from "./boot.ts";
import { Fault, noDevice, NOT_AFTER_BOOT, NOT_BEFORE_BOOT } from "./fault.ts";
import type { Logger } from "./logger.ts";
import { Metrics } from "./metrics.ts";
import { MicroVm, type VmBoot, type VmEnd } from "./microvm.ts";
import { MetadataStore, notInitialized } from "./mmds.ts";
import { Resources } from "./resources.ts";
import { prepareRestore, RESTORE_FAILED } from "./restore.ts";
import { SerialOutput } from "./serial-output.ts";
import { machineConfigView, vmConfigView } from "./vm-config-view.ts";

/** Why the program should end: the guest did, or a snapshot could not be loaded, which leaves nothing to go on with. */
export type Finish = VmEnd | { readonly kind: "load-failed" };

export interface ControllerOptions {
  readonly id: string;
  readonly logger: Logger;
  readonly mmdsLimit: number;
  /** What the jailer found; undefined outside a jail. */
  readonly accelerator: Accelerator | undefined;
}

export class Controller {
  readonly resources = new Resources();
  readonly metadata: MetadataStore;
  readonly metrics: Metrics;
  readonly finished: Promise<Finish>;
  readonly #options: ControllerOptions;
  readonly #finish = Promise.withResolvers<Finish>();
  #serial: SerialOutput | undefined;
  #vm: MicroVm | undefined;
  /** Something was configured that only a boot can use, so no snapshot may be loaded any more. */
  #isBootPath = false;

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.metadata = new MetadataStore(options.mmdsLimit);
    this.metrics = new Metrics(() => this.#serial?.counts ?? { written: 0, dropped: 0 });
    this.finished = this.#finish.promise;
  }

  /** Does what a request asks for and returns the value of the answer, undefined for none. Throws Fault. */
  async handle(action: Action): Promise<unknown> {
    const vm = this.#vm;
    const handler =
      handlerOf(this.#always, action) ??
      (vm === undefined
        ? (handlerOf(this.#beforeBoot, action) ?? handlerOf(this.#configuring, action))
        : handlerOf(this.#afterBoot(vm), action));
    if (handler === undefined) throw new Fault(vm === undefined ? NOT_BEFORE_BOOT : NOT_AFTER_BOOT);
    if (vm === undefined && action.name in this.#configuring) this.#isBootPath = true;
    return await handler();
  }

  readonly #always: Handlers = {
    "get-instance-info": () => ({
      id: this.#options.id,
      state: this.#vm?.state ?? "Not started",
      vmm_version: VERSION,
      app_name: "Firecracker",
    }),
    "get-version": () => ({ firecracker_version: VERSION }),
    "get-vm-config": () => vmConfigView(this.resources),
    "get-machine-config": () => machineConfigView(this.resources.machine),
    "get-mmds": () => this.#reachableMetadata().value ?? {},
    "put-mmds": (data) => this.#reachableMetadata().put(data),
    "patch-mmds": (data) => this.#reachableMetadata().patch(data),
    "get-balloon": () => {
      if (this.resources.balloon !== undefined) return this.resources.balloon;
      if (this.#vm !== undefined) throw noDevice("Internal VMM error");
      throw new Fault("Balloon config error: No balloon device found.");
    },
  };

  readonly #beforeBoot: Handlers = {
    "configure-logger": (config) => this.#configureLogger(config),
    "configure-metrics": (path) => this.metrics.configure(path),
    "configure-serial": (config) => {
      this.resources.serial = config;
    },
    "load-snapshot": async (config) => await this.#load(config),
    start: async () => await this.boot(),
    "set-other-device": (words) => {
      throw new Fault(words);
    },
  };

  /** These end the chance to load a snapshot, whether they succeed or not. */
  readonly #configuring: Handlers = {
    "configure-boot-source": (config) => this.resources.setBootSource(config),
    "update-machine-config": (config) => this.resources.updateMachine(config),
    "insert-drive": (config) => this.resources.insertDrive(config),
    "insert-network-interface": (config) => this.resources.insertNetworkInterface(config),
    "set-entropy": (config) => {
      this.resources.entropy = config;
    },
    "set-balloon": (config) => this.resources.setBalloon(config),
    "set-mmds-config": (config) => this.resources.setMmdsConfig(config),
  };

  #afterBoot(vm: MicroVm): Handlers {
    const noHotplug = (): never => {
      throw new Fault("PCI is not enabled");
    };
    return {
      pause: async () => await vm.pause(),
      resume: async () => await vm.resume(),
      "send-ctrl-alt-del": async () => await vm.sendCtrlAltDel(),
      "flush-metrics": () => this.metrics.flush(),
      "create-snapshot": async (config) => await vm.createSnapshot(config),
      "update-drive": async (config) => await vm.updateDrive(config),
      "update-network-interface": (config) => this.resources.updateNetworkInterface(config),
      "update-balloon": async (amountMib) => await vm.balloon().resize(amountMib),
      "update-balloon-statistics": async (intervalS) => await vm.balloon().poll(intervalS),
      "get-balloon-statistics": async () => await vm.balloon("Internal VMM error").statistics(),
      "insert-drive": noHotplug,
      "insert-network-interface": noHotplug,
      unplug: noHotplug,
      "other-device": () => {
        throw noDevice("Internal VMM error");
      },
    };
  }

  /** Boots what was configured. Throws Fault and leaves everything as it was. */
  async boot(): Promise<void> {
    const accelerator = this.#accelerator();
    const boot = planBoot(this.resources, accelerator);
    try {
      await this.#run(accelerator, boot);
    } catch (cause) {
      const words = cause instanceof Error ? cause.message : String(cause);
      throw new Fault(`Start microvm error: Internal error while starting microVM: ${words}`, { cause });
    }
  }

  /** Loads a snapshot. If that fails, the program has to end. Throws Fault. */
  async #load(config: SnapshotLoad): Promise<void> {
    if (this.#isBootPath) {
      throw new Fault(
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.",
      );
    }
    try {
      using plan = prepareRestore(config, this.resources, this.#accelerator());
      const { accelerator, devicesFd, memoryFd } = plan;
      try {
        await this.#run(accelerator, { from: "snapshot", devicesFd, memoryFd });
      } catch (cause) {
        const words = cause instanceof Error ? cause.message : String(cause);
        throw new Fault(`${RESTORE_FAILED}: Failed to build microVM from snapshot: ${words}`, { cause });
      }
      if (config.resume_vm) await this.#vm?.resume();
    } catch (error) {
      this.#finish.resolve({ kind: "load-failed" });
      throw error;
    }
  }

  async #run(accelerator: Accelerator, boot: VmBoot): Promise<void> {
    const { id, logger } = this.#options;
    const serial = new SerialOutput(this.resources.serial);
    const warn = (message: string): void => logger.log("warn", message);
    const vm = await MicroVm.start({ id, accelerator, resources: this.resources, serial, warn }, boot);
    this.#serial = serial;
    this.#vm = vm;
    if (this.resources.serial.serial_out_path === null) {
      process.stdin.on("data", (chunk: Buffer) => vm.writeSerial(chunk));
      process.stdin.on("error", () => undefined);
    }
    void vm.ended.then((end) => this.#finish.resolve(end));
  }

  #accelerator(): Accelerator {
    return this.#options.accelerator ?? (readRecord() === true ? "kvm" : "tcg");
  }

  #configureLogger(config: LoggerConfig): void {
    try {
      this.#options.logger.update(config);
    } catch (cause) {
      throw new Fault(`Logger error: Failed to open target file: ${osErrorText(cause)}`, { cause });
    }
  }

  /** After boot the store can only be reached if an interface leads to it. */
  #reachableMetadata(): MetadataStore {
    if (this.#vm !== undefined && this.resources.mmdsConfig === undefined) throw notInitialized();
    return this.metadata;
  }
}
