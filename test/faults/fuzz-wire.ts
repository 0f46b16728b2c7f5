import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { Compile } from "typebox/compile";
import { ErrorAnswerSchema } from "../../src/contract/health.ts";
import { ERRORS } from "../../src/contract/errors.ts";

const errorAnswer = Compile(ErrorAnswerSchema);
/** What a daemon that is no bug may answer, above 499. */
const EXPECTED_5XX = new Set([502, 503, 504, 507]);

/** One answer, as its bytes were. */
export interface RawAnswer {
  readonly status: number;
  readonly head: string;
  readonly body: Buffer;
}

/** Connects to a Unix socket, trying again while its queue is full. */
export async function dial(path: string): Promise<Socket> {
  for (let attempt = 0; ; attempt += 1) {
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const socket = connect({ path, allowHalfOpen: true });
    socket.once("connect", () => resolve(socket)).once("error", reject);
    try {
      return await promise;
    } catch (error) {
      if (attempt === 50) throw error;
      await new Promise((resume) => setTimeout(resume, 20));
    }
  }
}

/**
 * Sends bytes on a connection of its own and returns everything that comes until the other side closes it. `hangUpMs`: when
 * nothing came for so long we say that we send no more, on which the daemon closes. `limitMs`: the longest wait.
 */
export async function exchange(
  path: string,
  bytes: Buffer | string,
  { hangUpMs, limitMs = 30_000 }: { hangUpMs?: number; limitMs?: number } = {},
): Promise<Buffer> {
  const socket = await dial(path);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const chunks: Buffer[] = [];
  if (hangUpMs !== undefined) socket.setTimeout(hangUpMs, () => socket.end());
  // A daemon that closes while we still send is within its rights.
  socket
    .on("data", (chunk: Buffer) => void chunks.push(chunk))
    .on("error", () => resolve(true))
    .on("end", () => resolve(true))
    .on("close", () => resolve(true));
  const timer = setTimeout(() => resolve(false), limitMs);
  socket.write(bytes);
  const isClosed = await promise;
  clearTimeout(timer);
  socket.destroy();
  assert.ok(
    isClosed,
    `the connection is still open after ${limitMs} ms: ${JSON.stringify(Buffer.from(bytes).toString("latin1", 0, 200))}`,
  );
  return Buffer.concat(chunks);
}

/** Takes a stream of answers apart. Throws when it is none. `head` says that the first was asked for by HEAD. */
export function parseAnswers(bytes: Buffer, head = false): RawAnswer[] {
  const answers: RawAnswer[] = [];
  let rest = bytes;
  while (rest.length > 0) {
    const end = rest.indexOf("\r\n\r\n");
    const text = rest.subarray(0, Math.max(end, 0)).toString("latin1");
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1]);
    assert.ok(
      end > 0 && status >= 100,
      `no answer: ${JSON.stringify(rest.subarray(0, 200).toString("latin1"))}`,
    );
    rest = rest.subarray(end + 4);
    const length = Number(/^content-length: *(\d+)/im.exec(text)?.[1] ?? 0);
    assert.ok(!/^transfer-encoding:/im.test(text), `an answer without a length: ${text}`);
    const empty =
      status < 200 ||
      status === 204 ||
      status === 304 ||
      (head && answers.every((earlier) => earlier.status < 200));
    const body = empty ? Buffer.alloc(0) : rest.subarray(0, length);
    assert.equal(body.length, empty ? 0 : length, "an answer is cut short");
    rest = rest.subarray(body.length);
    answers.push({ status, head: text, body });
  }
  return answers;
}

/** An answer is of the contract: an error has the one shape and a code whose status it is, and none tells of a bug. */
export function assertOfContract({ status, head, body }: RawAnswer, isHead = false): void {
  const said = `${head.slice(0, 300)}\n${body.subarray(0, 600).toString()}`;
  assert.ok(status < 500 || EXPECTED_5XX.has(status), said);
  if (status < 400 || isHead) return;
  assert.match(head, /^content-type: application\/json/im, said);
  const answer: unknown = JSON.parse(body.toString("utf8"));
  assert.ok(errorAnswer.Check(answer), said);
  assert.ok(answer.code in ERRORS, said);
  assert.equal(ERRORS[answer.code as keyof typeof ERRORS].status, status, said);
  assert.ok(answer.error.length > 0, said);
}
