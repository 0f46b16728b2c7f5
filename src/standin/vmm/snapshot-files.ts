/**
 * A snapshot's two files. QEMU has one stream for devices and memory: it goes into the memory file, after a header.
 * The state file is JSON and holds the configuration, without which nobody knows what to load the stream into.
 * A name in both keeps two halves of different snapshots apart.
 */
import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from "node:fs";
import { unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";

import { osErrorText } from "../shared/os-error.ts";
import { decodeBody, type Decoder, maybe, need, struct, text, list, word } from "./decode.ts";
import * as bodies from "./bodies.ts";
import { Fault } from "./fault.ts";
import { JsonError } from "./json-reader.ts";

const FORMAT = "firecracker-qemu-snapshot-1";
const HEADER_BYTES = 4096;
const MAX_SOCKET_PATH = 107;

const snapshotState = struct("SnapshotState", {
  format: need(word([FORMAT])),
  pair: need(text),
  accelerator: need(word(["kvm", "tcg"])),
  machine_config: need(bodies.machineConfig),
  drives: need(list(bodies.drive)),
  network_interfaces: need(list(bodies.networkInterface)),
  /** Addresses that the guest has, by interface: those that were given and those that were made up. */
  guest_macs: need(list(text)),
  entropy: maybe(bodies.entropy),
  balloon: maybe(bodies.balloon),
  mmds_config: maybe(bodies.mmdsConfig),
});
export type SnapshotState = typeof snapshotState extends Decoder<infer T> ? T : never;

/** Writes the state file and returns the name of the pair. Throws Fault. */
export function writeStateFile(path: string, state: Omit<SnapshotState, "format" | "pair">): string {
  const pair = randomUUID();
  const body = `${JSON.stringify({ format: FORMAT, pair, ...state })}\n`;
  let doing = "open";
  try {
    const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o666);
    try {
      doing = "flush";
      writeSync(fd, body);
      doing = "sync_all";
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    const why = `Cannot perform ${doing} on the snapshot backing file: ${osErrorText(cause)}`;
    throw new Fault(`Create snapshot error: ${why}`, { cause });
  }
  return pair;
}

/** Reads a state file. Throws Fault. */
export function readStateFile(path: string): SnapshotState {
  const failed =
    "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file";
  let body: string;
  try {
    body = readFileSync(path, "utf8");
  } catch (cause) {
    throw new Fault(`${failed}: Failed to open snapshot file: ${osErrorText(cause)}`, { cause });
  }
  try {
    return decodeBody(snapshotState, body);
  } catch (cause) {
    if (!(cause instanceof JsonError)) throw cause;
    throw new Fault(`${failed}: Failed to load snapshot state from file: ${cause.message}`, { cause });
  }
}

/** Opens a memory file for loading; the descriptor stands at the stream. Throws Fault. */
export function openMemoryFile(path: string, pair: string): number {
  const failed =
    "Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: Error creating guest memory from file: Failed to load guest memory";
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY);
    const header = Buffer.alloc(HEADER_BYTES);
    const length = readSync(fd, header);
    const named = header.subarray(0, length).toString("latin1").replace(/\0+$/, "");
    if (!named.startsWith(headerText(pair, ""))) throw new Error("it does not belong to this state file");
    if (named !== headerText(pair, fstatSync(fd).size)) throw new Error("it is not complete");
    return fd;
  } catch (cause) {
    if (fd !== undefined) closeSync(fd);
    throw new Fault(`${failed}: ${osErrorText(cause)}`, { cause });
  }
}

/** Where QEMU sends a snapshot: a socket that only lives as long as this object, emptied into the memory file. */
export class MemoryReceiver implements AsyncDisposable {
  readonly uri: string;
  /** Settles when the whole stream is in the file and on the disk. Rejects with Fault. */
  readonly received: Promise<void>;
  readonly #server: Server;
  readonly #path: string;

  private constructor(server: Server, path: string, fd: number, pair: string, minBytes: number) {
    this.#server = server;
    this.#path = path;
    this.uri = `unix:${path}`;
    this.received = new Promise((resolve, reject) => {
      server.once("connection", (socket) => {
        receive(socket, fd, pair, minBytes).then(resolve, reject);
      });
    });
    // The caller may fail before it waits for this.
    this.received.catch(() => undefined);
  }

  /** Opens the memory file and starts to listen. `memoryBytes`: the guest's memory, which the file is at least as long as. */
  static async open(memoryFile: string, pair: string, memoryBytes: number): Promise<MemoryReceiver> {
    let fd: number;
    try {
      fd = openSync(memoryFile, constants.O_WRONLY | constants.O_CREAT, 0o666);
    } catch (cause) {
      throw memoryFault("open", cause);
    }
    try {
      ftruncateSync(fd, 0);
      writeSync(fd, Buffer.alloc(HEADER_BYTES));
      const { server, path } = await listenNear(memoryFile);
      return new MemoryReceiver(server, path, fd, pair, memoryBytes);
    } catch (cause) {
      closeSync(fd);
      throw memoryFault("truncate", cause);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
    try {
      unlinkSync(this.#path);
    } catch {
      // The server took its socket away itself.
    }
  }
}

/** The header comes last, and with it the length: a file that was cut short, then or later, is not taken for whole. */
async function receive(socket: Socket, fd: number, pair: string, minBytes: number): Promise<void> {
  try {
    for await (const chunk of socket) writeSync(fd, chunk as Buffer);
    if (fstatSync(fd).size < minBytes) ftruncateSync(fd, minBytes);
    writeSync(fd, headerText(pair, fstatSync(fd).size), 0, "latin1");
    fsyncSync(fd);
  } catch (cause) {
    throw memoryFault("write", cause);
  } finally {
    closeSync(fd);
  }
}

/** A socket in a folder that this process may write to and whose path is short enough. */
async function listenNear(memoryFile: string): Promise<{ readonly server: Server; readonly path: string }> {
  let last: unknown;
  for (const dir of ["/run", dirname(memoryFile), "/tmp"]) {
    const path = join(dir, `.snapshot-${randomUUID().slice(0, 8)}`);
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH) continue;
    const server = createServer();
    try {
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(path, resolve);
      });
      return { server, path };
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

function headerText(pair: string, bytes: number | ""): string {
  return `${FORMAT}\n${pair}\n${bytes}`;
}

function memoryFault(doing: string, cause: unknown): Fault {
  const why = `Cannot perform ${doing} on the memory backing file: ${osErrorText(cause)}`;
  return new Fault(`Create snapshot error: ${why}`, { cause });
}
