import { createHash } from "node:crypto";
import { once } from "node:events";
import { type FileHandle, mkdtemp, open, rm } from "node:fs/promises";
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SparseWriter } from "../../../src/storage/sparse-writer.ts";

/** How a request goes wrong. */
export interface Trouble {
  /** This many times; once unless given. */
  times?: number;
  /** Answers with this status instead, and S3's kind of XML. */
  status?: number;
  /** Takes or sends so many bytes of the body, and then one of: */
  after?: number;
  /**
   * ends the connection (the default), says and reads nothing more (and so does not see either that the client went
   * away), or answers before the rest was sent.
   */
  ending?: "cut" | "stall" | "answer";
  /** Waits so many milliseconds at each piece of a body. */
  slowMs?: number;
  /** PUT: answers with this ETag, or with none. */
  etag?: string | null;
  /** GET: one byte of what is sent is another. */
  wrongByte?: boolean;
  /** GET: sends only so many bytes, as if there were no more. */
  shortenedTo?: number;
  /** Leads elsewhere. */
  redirect?: string;
}

export interface StoreRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: IncomingMessage["headers"];
}

/**
 * A store for parts of objects that speaks as much HTTP as S3 does: `PUT /parts/<object>/<number>?X-Amz-Signature=…` takes a
 * part, `GET /objects/<object>?X-Amz-Signature=…` gives them one behind the other, with ranges. Parts lie in a folder.
 */
export class PartStore {
  readonly url: string;
  readonly requests: StoreRequest[] = [];
  /** Requests that were under way at the same time, at most. */
  mostAtOnce = 0;
  readonly #folder: string;
  readonly #troubles = new Map<string, Trouble & { times: number }>();
  readonly #parts = new Map<string, Map<number, { path: string; size: number; etag: string }>>();
  #atOnce = 0;
  #files = 0;

  constructor(url: string, folder: string) {
    this.url = url;
    this.#folder = folder;
  }

  /** Makes the next requests of `METHOD /path` go wrong. */
  trouble(request: string, trouble: Trouble): void {
    this.#troubles.set(request, { times: 1, ...trouble });
  }

  /** Requests of this method, as `/path`. */
  pathsOf(method: string): string[] {
    return this.requests.filter((request) => request.method === method).map(({ path }) => path);
  }

  /** As S3's CompleteMultipartUpload does: throws unless exactly these parts are there with these ETags. */
  complete(object: string, parts: readonly { part_number: number; etag: string }[]): void {
    const have = [...(this.#parts.get(object) ?? [])].map(([part_number, { etag }]) => ({
      part_number,
      etag,
    }));
    have.sort((one, other) => one.part_number - other.part_number);
    if (JSON.stringify(have) !== JSON.stringify(parts))
      throw new Error(`InvalidPart: ${object} has ${JSON.stringify(have)}, not ${JSON.stringify(parts)}`);
  }

  /** Puts an object of one part. */
  async put(object: string, bytes: Uint8Array): Promise<void> {
    const { path, handle } = await this.#newFile();
    await using _file = handle;
    await handle.writeFile(bytes);
    this.#parts.set(object, new Map([[1, { path, size: bytes.length, etag: etagOf(bytes) }]]));
  }

  /** The bytes of an object from `start` on, a piece at a time. */
  async *read(object: string, start = 0): AsyncGenerator<Buffer> {
    let skip = start;
    for (const { path, size } of this.#inOrder(object)) {
      await using handle = await open(path, "r");
      for (let at = Math.min(skip, size); at < size; ) {
        const piece = Buffer.alloc(Math.min(64 * 1024, size - at));
        await handle.read(piece, 0, piece.length, at);
        at += piece.length;
        yield piece;
      }
      skip = Math.max(0, skip - size);
    }
  }

  #inOrder(object: string): { path: string; size: number }[] {
    const parts = [...(this.#parts.get(object) ?? [])];
    return parts.sort(([one], [other]) => one - other).map(([, part]) => part);
  }

  async #newFile(): Promise<{ path: string; handle: FileHandle }> {
    const path = join(this.#folder, String((this.#files += 1)));
    return { path, handle: await open(path, "wx+") };
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#atOnce += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.#atOnce);
    response.once("close", () => (this.#atOnce -= 1));
    const { pathname: path, searchParams, search: query } = new URL(request.url ?? "/", this.url);
    const method = request.method ?? "";
    this.requests.push({ method, path, query, headers: request.headers });
    const trouble = this.#takeTrouble(`${method} ${path}`);
    if (!searchParams.has("X-Amz-Signature")) return refuse(response, 403, "AccessDenied");
    if (trouble.redirect !== undefined)
      return void response.writeHead(307, { location: trouble.redirect }).end();
    if (trouble.status !== undefined) return refuse(response, trouble.status, "Trouble");
    const [, place, object = "", number] = path.split("/");
    if (method === "PUT" && place === "parts")
      return this.#take(object, Number(number), trouble, request, response);
    if (method === "GET" && place === "objects") return this.#give(object, trouble, request, response);
    return refuse(response, 405, "MethodNotAllowed");
  }

  #takeTrouble(request: string): Trouble {
    const trouble = this.#troubles.get(request);
    if (trouble === undefined || trouble.times === 0) return {};
    trouble.times -= 1;
    return trouble;
  }

  async #take(
    object: string,
    number: number,
    trouble: Trouble,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const length = request.headers["content-length"];
    if (length === undefined) return refuse(response, 411, "MissingContentLength");
    const { path, handle } = await this.#newFile();
    await using _file = handle;
    const writer = new SparseWriter(handle);
    const hash = createHash("md5");
    for await (const piece of request as AsyncIterable<Buffer>) {
      await writer.write(piece);
      hash.update(piece);
      if (trouble.slowMs !== undefined) await sleep(trouble.slowMs);
      if (trouble.after !== undefined && writer.length >= trouble.after) {
        if (trouble.ending === "stall") return void (await once(response, "close"));
        if (trouble.ending === "answer") {
          refuse(response, 403, "AccessDenied");
          // Not at once, or the answer would be lost with the connection.
          await sleep(50);
        }
        return void request.destroy();
      }
    }
    const { size_bytes: size } = await writer.finish();
    if (size !== Number(length)) return refuse(response, 400, "IncompleteBody");
    const etag = `"${hash.digest("hex")}"`;
    const parts = this.#parts.get(object) ?? new Map<number, { path: string; size: number; etag: string }>();
    this.#parts.set(object, parts.set(number, { path, size, etag }));
    const told = trouble.etag === undefined ? etag : trouble.etag;
    response.writeHead(200, told === null ? {} : { etag: told }).end();
  }

  async #give(
    object: string,
    trouble: Trouble,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    if (!this.#parts.has(object)) return refuse(response, 404, "NoSuchKey");
    const total = this.#inOrder(object).reduce((sum, { size }) => sum + size, 0);
    const size = Math.min(total, trouble.shortenedTo ?? total);
    const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
    const start = Number(from ?? 0);
    if (from !== undefined && start >= size) return refuse(response, 416, "InvalidRange");
    response.setHeader("etag", `"${object}"`);
    response.setHeader("content-length", size - start);
    if (from !== undefined) response.setHeader("content-range", `bytes ${start}-${size - 1}/${size}`);
    response.writeHead(from === undefined ? 200 : 206);
    let left = Math.min(size - start, trouble.after ?? Number.POSITIVE_INFINITY);
    for await (const piece of this.read(object, start)) {
      if (left === 0 || response.destroyed) break;
      const sent = piece.subarray(0, Math.min(piece.length, left));
      if (trouble.wrongByte === true && left === size) sent[0] = (sent[0] ?? 0) ^ 1;
      left -= sent.length;
      if (!response.write(sent)) await writable(response);
      if (trouble.slowMs !== undefined) await sleep(trouble.slowMs);
    }
    if (trouble.after === undefined) return void response.end();
    if (trouble.ending === "stall") return void (await once(response, "close"));
    await sleep(20);
    response.destroy();
  }
}

/** Waits until there is room for more, or nobody takes it any more. */
async function writable(response: ServerResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once("drain", resolve).once("close", resolve);
  await promise;
  response.off("drain", resolve).off("close", resolve);
}

function etagOf(bytes: Uint8Array): string {
  return `"${createHash("md5").update(bytes).digest("hex")}"`;
}

function refuse(response: ServerResponse, status: number, code: string): void {
  // What S3 says of a wrong signature repeats what was signed.
  const text = `<?xml version="1.0"?><Error><Code>${code}</Code><StringToSign>a secret</StringToSign></Error>`;
  response.writeHead(status, { "content-type": "application/xml" }).end(text);
}

/** What of a test's context a store needs. */
interface AtTheEnd {
  after(work: () => unknown): void;
}

/** Starts a part store on loopback; it is gone after the test, with all parts. */
export async function startPartStore(t: AtTheEnd, host = "127.0.0.1"): Promise<PartStore> {
  const folder = await mkdtemp(join(tmpdir(), "part-store-"));
  const server: Server = createServer({ noDelay: true });
  server.listen(0, host);
  await once(server, "listening");
  t.after(async () => {
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true, force: true });
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const store = new PartStore(`http://${host}:${address.port}`, folder);
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    // A client that went away is no failure of the store.
    store.answer(request, response).catch(() => response.destroy());
  });
  return store;
}
