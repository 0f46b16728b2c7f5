/** `--config-file`: a whole VM in one JSON, applied in Firecracker's order. */
import { osErrorText } from "../shared/os-error.ts";
import { vmConfig } from "./bodies.ts";
import type { Controller } from "./controller.ts";
import { decodeBody } from "./decode.ts";
import { Fault } from "./fault.ts";
import { JsonError } from "./json-reader.ts";
import type { Logger } from "./logger.ts";

/** Configures and boots the VM that `text` describes. Throws Fault. */
export async function bootFromConfig(text: string, controller: Controller, logger: Logger): Promise<void> {
  try {
    configure(text, controller, logger);
  } catch (cause) {
    const words = wordsOf(cause);
    throw new Fault(`Configuration for VMM from one single json failed: ${words}`, { cause });
  }
  try {
    await controller.boot();
  } catch (cause) {
    const words = wordsOf(cause).replace(/^Start microvm error: /, "");
    throw new Fault(`Could not Start MicroVM from one single json: ${words}`, { cause });
  }
}

function configure(text: string, controller: Controller, logger: Logger): void {
  const { resources } = controller;
  const config = decodeBody(vmConfig, text);
  if (config.logger !== null) logger.update(config.logger);
  if (config.metrics !== null) controller.metrics.configure(config.metrics.metrics_path);
  if (config["machine-config"] !== null) resources.updateMachine(config["machine-config"]);
  resources.setBootSource(config["boot-source"]);
  for (const drive of config.drives) resources.insertDrive(drive);
  for (const nic of config["network-interfaces"]) resources.insertNetworkInterface(nic);
  if (config.balloon !== null) resources.setBalloon(config.balloon);
  if (config["mmds-config"] !== null) resources.setMmdsConfig(config["mmds-config"]);
  if (config.entropy !== null) resources.entropy = config.entropy;
  const more = ["cpu-config", "vsock", "memory-hotplug"] as const;
  const unsupported =
    more.find((name) => config[name] !== null) ?? (config.pmem.length > 0 ? "pmem" : undefined);
  if (unsupported !== undefined) throw new Fault(`the QEMU stand-in does not have ${unsupported}`);
}

function wordsOf(error: unknown): string {
  if (error instanceof JsonError) return `Invalid JSON: ${error.message}`;
  return error instanceof Fault ? error.message : osErrorText(error);
}
