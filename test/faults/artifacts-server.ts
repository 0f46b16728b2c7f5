/**
 * A server of kernels and root disks that means ill, as a program of its own, so that it can stand in another network
 * namespace. Arguments: address, port, folder with good files. It prints "ready"; each line that it reads is answered by the
 * paths that were asked for since the last one, as JSON. It ends with its standard input.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { Place } from "../support/playground.ts";

export interface IllServer extends AsyncDisposable {
  readonly url: string;
  /** The paths that were asked for since this was called last. */
  asked(): Promise<string[]>;
}

/** Starts one at an address of a namespace, with good files (`kernel.elf`, `root.ext4`) in `folder`. */
export async function startIllServer(
  place: Place,
  address: string,
  port: number,
  folder: string,
): Promise<IllServer> {
  const script = fileURLToPath(import.meta.url);
  const [file, ...args] = place.command([process.execPath, script, "serve", address, String(port), folder]);
  const child: ChildProcess = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  if (child.stdout === null) throw new Error("the server has no output");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error("the server ended");
    return value;
  };
  await line();
  return {
    url: `http://${address}:${port}`,
    asked: async () => {
      child.stdin?.write("asked\n");
      return JSON.parse(await line()) as string[];
    },
    [Symbol.asyncDispose]: async () => {
      const ended = once(child, "exit");
      child.stdin?.end();
      await ended;
    },
  };
}

const MIB = 1024 * 1024;
/** Fifty times as much as it looks like. */
const BOMB_MIB = 50;

/** Sends `chunk` again and again, for as long as the other side takes it. */
function endlessly(response: ServerResponse, chunk: Buffer): void {
  const more = (): void => {
    while (!response.destroyed && response.write(chunk));
  };
  response.on("drain", more);
  more();
}

/** A file with an ext4 superblock's two magic bytes and nothing else of a filesystem. */
function onlyMagic(): Buffer {
  const bytes = Buffer.alloc(2 * MIB, 0xa5);
  bytes.writeUInt16LE(0xef53, 0x438);
  return bytes;
}

function elfOfAnother(): Buffer {
  const bytes = Buffer.alloc(4096);
  Buffer.from("\x7fELF\x02\x01\x01", "latin1").copy(bytes);
  bytes.writeUInt16LE(0xb7, 18);
  return bytes;
}

function partitioned(): Buffer {
  const bytes = Buffer.alloc(MIB);
  bytes.writeUInt16LE(0xaa55, 0x1fe);
  bytes.write("EFI PART", 0x200);
  return bytes;
}

type Handler = (response: ServerResponse, request: IncomingMessage) => unknown;

function handlers(folder: string): Readonly<Record<string, Handler>> {
  const [kernel, rootfs] = [
    readFileSync(join(folder, "kernel.elf")),
    readFileSync(join(folder, "root.ext4")),
  ];
  const whole =
    (body: Buffer | string, headers: Record<string, string> = {}, status = 200): Handler =>
    (response) =>
      response.writeHead(status, { "content-length": Buffer.byteLength(body), ...headers }).end(body);
  const raw =
    (bytes: string): Handler =>
    (response) =>
      response.socket?.end(bytes);
  return {
    kernel: whole(kernel),
    rootfs: whole(rootfs),
    "endless-zeros": (response) => endlessly(response, Buffer.alloc(MIB)),
    "endless-noise": (response) => endlessly(response, Buffer.alloc(64 * 1024, "noise")),
    slow: (response) => {
      response.writeHead(200, { "content-length": 1e9 });
      const timer = setInterval(() => response.write("x"), 50);
      response.on("close", () => clearInterval(timer));
    },
    silent: () => {},
    "silent-body": (response) => response.writeHead(200, { "content-length": 1e6 }).write("x"),
    "claims-much": (response) => response.writeHead(200, { "content-length": 2 ** 45 }).write("x"),
    truncated: (response) => {
      response.writeHead(200, { "content-length": 1e6 }).write(kernel.subarray(0, 1000));
      setTimeout(() => response.destroy(), 20);
    },
    "lies-about-ranges": (response, request) => {
      if (request.headers.range === undefined) {
        response.writeHead(200, { "content-length": 1e6, etag: '"x"' }).write("x".repeat(1000));
        setTimeout(() => response.destroy(), 20);
      } else {
        response.writeHead(206, { "content-range": "bytes 0-9/10", "content-length": 10, etag: '"x"' });
        response.end("0123456789");
      }
    },
    "not-modified": (response) => response.writeHead(304).end(),
    "no-content": (response) => response.writeHead(204).end(),
    "partial-unasked": whole("x", { "content-range": "bytes 0-0/1" }, 206),
    missing: whole("gone", {}, 404),
    "not-http": raw("220 smtp ready\r\n"),
    "two-lengths": raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 9\r\n\r\n12345"),
    "bad-chunks": raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n"),
    "headers-without-end": (response) => {
      const { socket } = response;
      socket?.write("HTTP/1.1 200 OK\r\n");
      const timer = setInterval(() => socket?.write(`x-${Math.random()}: ${"y".repeat(8000)}\r\n`), 2);
      socket?.on("close", () => clearInterval(timer));
    },
    "encoded-bomb": whole(gzipSync(Buffer.alloc(BOMB_MIB * MIB)), { "content-encoding": "gzip" }),
    "gzip-bomb": whole(gzipSync(Buffer.alloc(BOMB_MIB * MIB))),
    "zstd-bomb": whole(zstdCompressSync(Buffer.alloc(BOMB_MIB * MIB))),
    html: whole("<!doctype html><title>Sign in</title>", { "content-type": "text/html" }),
    empty: whole(""),
    text: whole("this is no kernel\n".repeat(1000)),
    zeros: whole(Buffer.alloc(MIB)),
    "only-magic": whole(onlyMagic()),
    "other-elf": whole(elfOfAnother()),
    partitioned: whole(partitioned()),
    qcow2: whole("QFI\xfb"),
    to: (response, { url }) => {
      const target = decodeURIComponent(url?.split("?")[1] ?? "");
      response.writeHead(302, { location: target }).end();
    },
    circle: (response) => response.writeHead(302, { location: "/circle" }).end(),
    "no-location": (response) => response.writeHead(302).end(),
  };
}

async function serve(address: string, port: number, folder: string): Promise<void> {
  const known = handlers(folder);
  let asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? "");
    response.on("error", () => {});
    const name = /^\/([a-z0-9-]+)/.exec(request.url ?? "")?.[1] ?? "missing";
    (known[name] ?? known["missing"])?.(response, request);
  });
  server.listen(port, address);
  await once(server, "listening");
  process.stdout.write("ready\n");
  for await (const _line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(asked)}\n`);
    asked = [];
  }
  process.exit(0);
}

const [, , mode, address = "", port = "", folder = ""] = process.argv;
if (mode === "serve") await serve(address, Number(port), folder);
