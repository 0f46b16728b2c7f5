/**
 * The HTTP of Firecracker's API: a small part of HTTP/1.1, with its own words for what it refuses. Node's server
 * accepts much more and answers errors in its own way, so the bytes are taken apart here.
 */

export type Method = "GET" | "PUT" | "PATCH" | "DELETE";

export interface Request {
  readonly method: Method;
  /** The absolute path, or "" for a target that has none. */
  readonly path: string;
  /** Undefined if there was none (or an empty one, which is the same to Firecracker). */
  readonly body: string | undefined;
}

export interface Response {
  readonly status: number;
  readonly body?: string;
  readonly deprecated?: boolean;
}

/** A request at the level of HTTP that can't be served. */
export class HttpError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "HttpError";
  }
}

/** Longest request line, and longest header line, in bytes. */
const MAX_LINE = 1024;
const METHODS: readonly Method[] = ["GET", "PUT", "PATCH", "DELETE"];
const CRLF = Buffer.from("\r\n");

type Step =
  | { readonly at: "line" }
  | {
      readonly at: "headers";
      readonly method: Method;
      readonly path: string;
      readonly length: number;
      readonly expects: boolean;
    }
  | { readonly at: "body"; readonly method: Method; readonly path: string; readonly length: number };

/** What came out of the bytes so far: requests, and interim answers that the client waits for. */
export type Parsed = { readonly kind: "request"; readonly request: Request } | { readonly kind: "continue" };

/** Parses one connection's bytes as they come. */
export class RequestParser {
  readonly #maxBody: number;
  #rest: Buffer = Buffer.alloc(0);
  #step: Step = { at: "line" };

  constructor(maxBody: number) {
    this.#maxBody = maxBody;
  }

  /** Takes more bytes and returns what is complete. Throws HttpError, after which the parser starts afresh. */
  push(chunk: Buffer): readonly Parsed[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const parsed: Parsed[] = [];
    try {
      while (this.#advance(parsed));
    } catch (error) {
      this.#rest = Buffer.alloc(0);
      this.#step = { at: "line" };
      throw error;
    }
    return parsed;
  }

  #advance(parsed: Parsed[]): boolean {
    const step = this.#step;
    if (step.at === "body") {
      if (this.#rest.length < step.length) return false;
      const body = this.#rest.subarray(0, step.length).toString("utf8");
      this.#rest = this.#rest.subarray(step.length);
      this.#finish(parsed, { method: step.method, path: step.path, body });
      return true;
    }
    const end = this.#rest.indexOf(CRLF);
    if (end < 0) {
      if (this.#rest.length < MAX_LINE) return false;
      if (step.at === "line") throw new HttpError("Invalid request.");
      throw new HttpError(`Invalid header. Reason: Invalid content length. Header: ${this.#rest.toString()}`);
    }
    const line = this.#rest.subarray(0, end).toString("utf8");
    this.#rest = this.#rest.subarray(end + CRLF.length);
    if (step.at === "line") {
      this.#step = { at: "headers", ...parseRequestLine(line), length: 0, expects: false };
      return true;
    }
    if (line !== "") {
      this.#step = { ...step, ...parseHeader(line) };
      return true;
    }
    if (step.length === 0) {
      this.#finish(parsed, { method: step.method, path: step.path, body: undefined });
      return true;
    }
    if (step.length > this.#maxBody) {
      throw new HttpError(
        `Request payload with size ${step.length} is larger than the limit of ${this.#maxBody} allowed by server.`,
      );
    }
    if (step.expects) parsed.push({ kind: "continue" });
    this.#step = { at: "body", method: step.method, path: step.path, length: step.length };
    return true;
  }

  #finish(parsed: Parsed[], request: Request): void {
    parsed.push({ kind: "request", request });
    this.#step = { at: "line" };
  }
}

function parseRequestLine(line: string): { readonly method: Method; readonly path: string } {
  const [, name, uri, version] = /^([^ ]*) ([^ ]*) (.*)$/.exec(line) ?? [];
  if (name === undefined || uri === undefined) throw new HttpError("Invalid request.");
  const method = METHODS.find((candidate) => candidate === name);
  if (method === undefined) throw new HttpError("Invalid HTTP Method: Unsupported HTTP method.");
  if (uri === "") throw new HttpError("Invalid URI: Empty URI not allowed.");
  if (version !== "HTTP/1.0" && version !== "HTTP/1.1") {
    throw new HttpError("Invalid HTTP Version: Unsupported HTTP version.");
  }
  return { method, path: absolutePath(uri) };
}

function absolutePath(uri: string): string {
  if (!uri.startsWith("http://")) return uri.startsWith("/") ? uri : "";
  const rest = uri.slice("http://".length);
  const slash = rest.indexOf("/");
  return slash < 0 ? "" : rest.slice(slash);
}

/** What a header line says about the body; all other headers are ignored. */
function parseHeader(line: string): { length?: number; expects?: boolean } {
  const colon = line.indexOf(":");
  if (colon < 0) throw new HttpError(`Invalid header. Reason: Header is incorrectly formatted. Key: ${line}`);
  const key = line.slice(0, colon);
  const value = line.slice(colon + 1);
  switch (key.trim().toLowerCase()) {
    case "content-length": {
      const length = /^\+?[0-9]+$/.test(value.trim()) ? Number(value) : Number.NaN;
      if (!(length <= 0xffff_ffff)) {
        throw new HttpError(`Invalid header. Reason: Invalid value. Key:${key}; Value:${value}`);
      }
      return { length };
    }
    case "expect":
      return value.trim() === "100-continue" ? { expects: true } : {};
    case "accept-encoding":
      checkEncodings(value.trim());
      return {};
    default:
      return {};
  }
}

function checkEncodings(value: string): void {
  if (value === "") throw new HttpError("Invalid request.");
  for (const part of value.split(",")) {
    const encoding = part.trim();
    if (encoding === "identity;q=0" || (encoding === "*;q=0" && !value.includes("identity"))) {
      throw new HttpError(`Invalid header. Reason: Invalid value. Key:Accept-Encoding; Value:${encoding}`);
    }
  }
}

/** The bytes of an answer. */
export function formatResponse(response: Response): string {
  const lines = [`HTTP/1.1 ${response.status} `, "Server: Firecracker API", "Connection: keep-alive"];
  if (response.deprecated === true) lines.push("Deprecation: true");
  const body = response.body ?? "";
  if (response.status !== 204 && response.status !== 100) {
    lines.push("Content-Type: application/json", `Content-Length: ${Buffer.byteLength(body)}`);
  }
  return `${lines.join("\r\n")}\r\n\r\n${body}`;
}

/** The answer to an HttpError. It holds a raw newline, as Firecracker's does, and so is not valid JSON. */
export function httpErrorResponse(error: HttpError): Response {
  const lost = "All previous unanswered requests will be dropped.";
  return { status: 400, body: `{ "error": "${error.message}\n${lost}" }` };
}

export const TOO_MANY_CONNECTIONS =
  "HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n" +
  '{ "error": "Too many open connections" }';
