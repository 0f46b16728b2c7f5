import type { ErrorAnswer } from "../contract/health.ts";

/**
 * Codes of the client's own, beside those of the daemon's answers (docs/errors.md): nobody answers at the
 * socket; what answers is no daemon; the connection was lost before the answer came.
 */
export type LocalErrorCode = "daemon_unreachable" | "bad_answer" | "connection_lost";

/** A call that failed. Aborted calls reject with the signal's reason instead. */
export class ClientError extends Error {
  /** Stable: a code of docs/errors.md, or one of `LocalErrorCode`. */
  readonly code: string;
  /** HTTP status of the daemon's answer; undefined when there was none. */
  readonly status: number | undefined;
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(
    code: string,
    message: string,
    options: { status?: number; details?: Readonly<Record<string, unknown>>; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ClientError";
    this.code = code;
    this.status = options.status;
    this.details = options.details;
  }
}

/** The error that the daemon's answer with `status` carries; `bad_answer` when it is not in the contract's shape. */
export function errorOfAnswer(status: number, text: string): ClientError {
  const answer = parseErrorAnswer(text);
  if (answer === undefined) {
    return new ClientError("bad_answer", `the daemon answered ${status} without an error of the contract`, {
      status,
    });
  }
  const { error, code, details } = answer;
  return new ClientError(code, error, { status, ...(details === undefined ? {} : { details }) });
}

/** Why the request to `socketPath` had no answer, in words that a person can act on. */
export function errorOfConnection(socketPath: string, cause: unknown): ClientError {
  const errno = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (errno === "ENOENT" || errno === "ECONNREFUSED") {
    return new ClientError("daemon_unreachable", `no daemon answers at ${socketPath}: is it running?`, {
      cause,
    });
  }
  if (errno === "EACCES" || errno === "EPERM") {
    return new ClientError(
      "daemon_unreachable",
      `you may not use the socket ${socketPath}: be root, or in the group that FIRECRACKER_HOST_SOCKET_GROUP names`,
      { cause },
    );
  }
  const said = cause instanceof Error ? cause.message : String(cause);
  return new ClientError("connection_lost", `the connection to ${socketPath} failed: ${said}`, { cause });
}

function parseErrorAnswer(text: string): ErrorAnswer | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || !("error" in value) || !("code" in value))
    return undefined;
  const { error, code } = value;
  if (typeof error !== "string" || typeof code !== "string") return undefined;
  const details = "details" in value && isRecord(value.details) ? value.details : undefined;
  return { error, code, ...(details === undefined ? {} : { details }) };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
