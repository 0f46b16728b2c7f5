/**
 * A snapshot's state file: a line that names the format, a line of JSON with the configuration, what QEMU saved of its
 * devices, and the SHA-256 of it all, since a damaged one has to be refused.
 */
import { createHash } from "node:crypto";
import { closeSync, constants, fsyncSync, ftruncateSync, openSync, readFileSync } from "node:fs";

import { errnoOf, osErrorText } from "../shared/os-error.ts";
import { writeWhole } from "../shared/whole-io.ts";
import * as bodies from "./bodies.ts";
import { decodeBody, type Decoder, list, maybe, need, struct, text, word } from "./decode.ts";
import { Fault } from "./fault.ts";
import { JsonError } from "./json-reader.ts";

/** The version of the format, as Firecracker would print it. */
export const SNAPSHOT_VERSION = "v2.0.0-qemu";
const MAGIC = "firecracker-qemu-snapshot ";
const DIGEST_BYTES = 32;
/** More than the devices of a large machine take up. */
const MOST_DEVICE_BYTES = 256 * 1024;
const NEWLINE = 0x0a;
const EISDIR = 21;

const snapshotState = struct("SnapshotState", {
  accelerator: need(word(["kvm", "tcg"])),
  machine_config: need(bodies.machineConfig),
  boot_source: maybe(bodies.bootSource),
  drives: need(list(bodies.drive)),
  network_interfaces: need(list(bodies.networkInterface)),
  /** Addresses that the guest has, by interface: those that were given and those that were made up. */
  guest_macs: need(list(text)),
  entropy: maybe(bodies.entropy),
  balloon: maybe(bodies.balloon),
  mmds_config: maybe(bodies.mmdsConfig),
});
export type SnapshotState = typeof snapshotState extends Decoder<infer T> ? T : never;

/** What a state file holds. The devices' own bytes start at `devicesOffset` and say themselves where they end. */
export interface StateFile {
  readonly state: SnapshotState;
  readonly devicesOffset: number;
}

/**
 * Writes a state file. `saveDevices` lets QEMU write its devices to a file, which is then read and rewritten: QEMU
 * starts at the front of it. Throws Fault.
 */
export async function writeStateFile(
  path: string,
  state: SnapshotState,
  saveDevices: (path: string) => Promise<void>,
): Promise<void> {
  let doing = "open";
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o666);
    doing = "write";
    // QEMU would not say why it cannot write, and a limit would kill it rather than this program.
    writeWhole(fd, Buffer.alloc(MOST_DEVICE_BYTES), 0);
    await saveDevices(path);
    const devices = readFileSync(path);
    const head = `${MAGIC}${SNAPSHOT_VERSION}\n${JSON.stringify(state)}\n`;
    const content = Buffer.concat([Buffer.from(head), devices]);
    const whole = Buffer.concat([content, digestOf(content)]);
    ftruncateSync(fd, 0);
    writeWhole(fd, whole, 0);
    doing = "sync_all";
    fsyncSync(fd);
  } catch (cause) {
    if (cause instanceof Fault) throw cause;
    const why =
      doing === "write"
        ? `Cannot serialize the microVM state: IO Error: ${osErrorText(cause)}`
        : `Cannot perform ${doing} on the snapshot backing file: ${osErrorText(cause)}`;
    throw new Fault(`Create snapshot error: ${why}`, { cause });
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Reads a state file. Throws Fault for one that is missing, damaged or of another version. */
export function readStateFile(path: string): StateFile {
  const failed =
    "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file";
  let whole: Buffer;
  try {
    whole = readFileSync(path);
  } catch (cause) {
    if (errnoOf(cause) === EISDIR) {
      const why = `Failed to load snapshot state from file: IO Error: ${osErrorText(cause)}`;
      throw new Fault(`${failed}: ${why}`, { cause });
    }
    throw new Fault(`${failed}: Failed to open snapshot file: ${osErrorText(cause)}`, { cause });
  }
  const refused = (why: string, cause?: unknown): Fault =>
    new Fault(`${failed}: Failed to load snapshot state from file: ${why}`, { cause });
  const stateOffset = whole.indexOf(NEWLINE) + 1;
  const format = whole.toString("latin1", 0, Math.max(0, stateOffset - 1));
  if (!format.startsWith(MAGIC)) throw refused("Magic value does not match arch");
  const version = format.slice(MAGIC.length);
  if (version !== SNAPSHOT_VERSION) throw refused(`Invalid data version: ${version.replace(/^v/, "")}`);
  const content = whole.subarray(0, whole.length - DIGEST_BYTES);
  if (!digestOf(content).equals(whole.subarray(-DIGEST_BYTES))) throw refused("CRC64 validation failed");
  const devicesOffset = whole.indexOf(NEWLINE, stateOffset) + 1;
  try {
    const state = decodeBody(snapshotState, whole.toString("utf8", stateOffset, devicesOffset - 1));
    return { state, devicesOffset };
  } catch (cause) {
    if (!(cause instanceof JsonError)) throw cause;
    throw refused(cause.message, cause);
  }
}

function digestOf(bytes: Buffer): Buffer {
  return createHash("sha256").update(bytes).digest();
}
