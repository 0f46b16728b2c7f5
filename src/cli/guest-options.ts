import { readFile } from "node:fs/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { GuestConfig, Ready, Restart } from "../contract/machine.ts";
import { parseCount, parseDiskBytes, parseMemoryMib } from "./sizes.ts";

export interface SizeOptions {
  readonly memory?: number;
  readonly vcpus?: number;
  readonly disk?: number;
}

/** Who the guest shall be and when it counts as running, as commander collects it. */
export interface GuestOptions {
  readonly key?: readonly string[];
  readonly userCa?: readonly string[];
  readonly hostname?: string;
  readonly webhook?: string;
  readonly webhookToken?: string;
  readonly ready?: Ready;
  readonly restart?: Restart;
}

/** Adds the options for a machine's size. */
export function addSizeOptions(command: Command): Command {
  return command
    .option("--memory <size>", "memory of the guest, such as 512MiB", parseMemoryMib)
    .option("--vcpus <count>", "number of virtual CPUs", parseCount)
    .option("--disk <size>", "size of the system disk, such as 2GiB", parseDiskBytes);
}

/** Adds the options that create, restore and fork share. */
export function addGuestOptions(command: Command): Command {
  return command
    .option("--key <file>", "public key that may log in (may be given more than once)", collect)
    .option("--user-ca <file>", "public key of a CA whose users may log in (more than once)", collect)
    .option("--hostname <name>", "hostname of the guest (default: the machine's id)")
    .option("--webhook <url>", "URL that the guest calls on each login")
    .option("--webhook-token <token>", "bearer token for the webhook")
    .addOption(new Option("--ready <what>", "when the machine counts as running").choices(["ssh", "started"]))
    .addOption(
      new Option("--restart <policy>", "start it again when it ends by itself").choices([
        "always",
        "on-failure",
        "never",
      ]),
    );
}

/** What of `options` belongs in the body of these requests. Rejects when a key file cannot be read. */
export async function guestBody(options: GuestOptions): Promise<{
  guest_config?: GuestConfig;
  ready?: Ready;
  restart?: Restart;
}> {
  const guest_config = await guestConfig(options);
  return {
    ...(Object.keys(guest_config).length === 0 ? {} : { guest_config }),
    ...(options.ready === undefined ? {} : { ready: options.ready }),
    ...(options.restart === undefined ? {} : { restart: options.restart }),
  };
}

/** A machine's size in the contract's fields and units. */
export function sizeBody({ memory, vcpus, disk }: SizeOptions): {
  memory_mib?: number;
  vcpus?: number;
  storage_bytes?: number;
} {
  return {
    ...(memory === undefined ? {} : { memory_mib: memory }),
    ...(vcpus === undefined ? {} : { vcpus }),
    ...(disk === undefined ? {} : { storage_bytes: disk }),
  };
}

async function guestConfig(options: GuestOptions): Promise<GuestConfig> {
  const { hostname, key, userCa, webhook: url, webhookToken: bearer_token } = options;
  if (url === undefined && bearer_token !== undefined) {
    throw new InvalidArgumentError("error: option '--webhook-token' needs '--webhook <url>'");
  }
  return {
    ...(hostname === undefined ? {} : { hostname }),
    ...(key === undefined ? {} : { authorized_keys: await keysOf(key) }),
    ...(userCa === undefined ? {} : { trusted_user_ca_keys: await keysOf(userCa) }),
    ...(url === undefined
      ? {}
      : { login_webhook: { url, ...(bearer_token === undefined ? {} : { bearer_token }) } }),
  };
}

/** The lines of public key files, without comments. A private key is refused before it could be sent anywhere. */
async function keysOf(paths: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(paths.map((path) => readFile(path, "utf8")));
  return texts.flatMap((text, index) => {
    if (text.includes("PRIVATE KEY")) {
      throw new InvalidArgumentError(`error: ${paths[index]} is a private key; give the .pub file beside it`);
    }
    return text
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "" && !line.startsWith("#"));
  });
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
