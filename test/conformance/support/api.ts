import assert from "node:assert/strict";
import { request, type IncomingHttpHeaders } from "node:http";
import { createConnection } from "node:net";

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

const ANSWER_TIMEOUT_MS = 30_000;

/**
 * One request over a Unix socket. A string body is sent as it is, so that broken JSON can be sent too;
 * anything else is sent as JSON. Rejects when the connection ends without an answer.
 */
export async function call(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<Answer> {
  const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  const headers: Record<string, string> = { accept: "application/json" };
  if (text !== undefined) {
    headers["content-type"] = "application/json";
    headers["content-length"] = String(Buffer.byteLength(text));
  }
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path, headers, agent: false }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("error", reject);
      incoming.on("end", () => {
        const { statusCode: status = 0, headers: answered } = incoming;
        resolve({ status, headers: answered, text: Buffer.concat(chunks).toString() });
      });
    });
    outgoing.setTimeout(ANSWER_TIMEOUT_MS, () => {
      outgoing.destroy(new Error(`${method} ${path}: no answer in ${ANSWER_TIMEOUT_MS} ms`));
    });
    outgoing.on("error", reject);
    outgoing.end(text);
  });
}

/** Sends bytes as they are and returns all that comes back until `enough` says so or the peer closes. */
export async function exchange(
  socketPath: string,
  bytes: string,
  enough: (received: string) => boolean,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = "";
    const socket = createConnection(socketPath, () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(new Error(`no full answer: ${received}`)), 10_000);
    socket.on("data", (chunk: Buffer) => {
      received += chunk.toString();
      if (enough(received)) socket.destroy();
    });
    socket.on("error", reject);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(received);
    });
  });
}

export function json(answer: Answer): Record<string, unknown> {
  const value: unknown = JSON.parse(answer.text);
  assert.ok(typeof value === "object" && value !== null && !Array.isArray(value), answer.text);
  return value as Record<string, unknown>;
}

export function expectDone(answer: Answer): void {
  assert.equal(answer.status, 204, answer.text);
  assert.equal(answer.text, "");
}

/** The body of a 200. */
export function expectBody(answer: Answer): Record<string, unknown> {
  assert.equal(answer.status, 200, answer.text);
  return json(answer);
}

/** Firecracker's refusal of a request that it understood as HTTP: one sentence, nothing else. Returns it. */
export function expectFault(answer: Answer, status = 400): string {
  assert.equal(answer.status, status, answer.text);
  const body = json(answer);
  assert.deepEqual(Object.keys(body), ["fault_message"]);
  const message = body["fault_message"];
  assert.ok(typeof message === "string" && message !== "", answer.text);
  return message;
}
