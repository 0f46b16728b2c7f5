import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import { once } from "node:events";
import type { TestContext } from "node:test";

/** A file as the server gives it out, and how it misbehaves. */
export interface Served {
  body: Buffer;
  etag?: string;
  lastModified?: string;
  /** Ends the connection after so many bytes of an answer, this many times. */
  breakAfter?: number;
  breaks?: number;
  /** Answers this many times with 503 first. */
  busy?: number;
  /** Answers with the whole file whatever is asked for. */
  ignoresRange?: boolean;
  /** Sends in chunks, without a length. */
  chunked?: boolean;
  /** Says nothing more after so many bytes. */
  stallAfter?: number;
  redirect?: string;
  status?: number;
}

export interface FileServer {
  readonly url: string;
  readonly files: Map<string, Served>;
  /** `GET /path range` of each request, in order. */
  readonly requests: string[];
}

/** An HTTP server on loopback that breaks, stalls, redirects and forgets as told. */
export async function startFileServer(t: TestContext, host = "127.0.0.1"): Promise<FileServer> {
  const files = new Map<string, Served>();
  const requests: string[] = [];
  const server: Server = createServer((request, response) => answer(files, requests, request, response));
  server.listen(0, host);
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return { url: `http://${host}:${address.port}`, files, requests };
}

function answer(
  files: Map<string, Served>,
  requests: string[],
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { range, "if-range": ifRange, "if-none-match": ifNoneMatch } = request.headers;
  const path = request.url ?? "/";
  requests.push(["GET", path, range, ifNoneMatch].filter((part) => part !== undefined).join(" "));
  const file = files.get(path);
  if (file === undefined) {
    response.writeHead(404).end("no such file");
    return;
  }
  if (file.redirect !== undefined) {
    response.writeHead(302, { location: file.redirect }).end();
    return;
  }
  if ((file.busy ?? 0) > 0) {
    file.busy = (file.busy ?? 0) - 1;
    response.writeHead(503).end();
    return;
  }
  if (file.etag !== undefined) response.setHeader("etag", file.etag);
  if (file.lastModified !== undefined) response.setHeader("last-modified", file.lastModified);
  if (ifNoneMatch !== undefined && ifNoneMatch === file.etag) {
    response.writeHead(304).end();
    return;
  }
  const start = /^bytes=(\d+)-$/.exec(range ?? "")?.[1];
  const same = ifRange === undefined || ifRange === file.etag || ifRange === file.lastModified;
  const isPart = start !== undefined && same && file.ignoresRange !== true;
  const body = isPart ? file.body.subarray(Number(start)) : file.body;
  if (isPart) {
    response.setHeader("content-range", `bytes ${start}-${file.body.length - 1}/${file.body.length}`);
  }
  if (file.chunked !== true) response.setHeader("content-length", body.length);
  response.writeHead(file.status ?? (isPart ? 206 : 200));
  if (file.stallAfter !== undefined) {
    response.write(body.subarray(0, file.stallAfter));
  } else if (file.breakAfter !== undefined && (file.breaks ?? 0) > 0) {
    file.breaks = (file.breaks ?? 0) - 1;
    response.write(body.subarray(0, file.breakAfter), () => setTimeout(() => response.destroy(), 20));
  } else {
    response.end(body);
  }
}
