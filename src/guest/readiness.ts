import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";
import { connectSsh, type SshConnection, type SshTarget } from "./ssh.ts";
import { SshFailure, type SshFailureKind } from "./ssh-failure.ts";

/** Many connections are tried at once within this time. */
const CONNECT_MS = 2_000;

/**
 * A guest in software emulation on a busy host takes seconds for a handshake; one that came up in mid-attempt
 * may have lost a packet for good. So the first limit is moderate, and each that was hit doubles the next.
 */
const HANDSHAKE_MS = { first: 20_000, longest: 60_000 };

/** Nothing listens yet: the hot path of each create, so asked often. */
const PAUSE_UNREACHABLE_MS = { first: 20, longest: 100 };

/** sshd answered but not well: asked less often, since newer ones lock out addresses that fail too often. */
const PAUSE_ANSWERED_MS = { first: 50, longest: 1_000 };

/** A time that doubles whenever it was used, up to a limit. */
class Growing {
  #nextMs: number;
  readonly #longestMs: number;

  constructor({ first, longest }: { first: number; longest: number }) {
    this.#nextMs = first;
    this.#longestMs = longest;
  }

  get currentMs(): number {
    return this.#nextMs;
  }

  /** The time to use now. */
  take(): number {
    const takenMs = this.#nextMs;
    this.#nextMs = Math.min(takenMs * 2, this.#longestMs);
    return takenMs;
  }
}

/**
 * Resolves when the daemon is logged in at a server with exactly the expected host key. Tries until the signal
 * ends it, also while another host key answers (that guest may still be about to get its identity).
 * Rejects as `logIn` does.
 */
export async function waitReady(target: SshTarget, signal: AbortSignal, log: Log): Promise<void> {
  using _connection = await logIn(target, signal, log);
}

/**
 * Logs in at a guest that is about to come up. Tries until the signal ends it, or until it sees one of the failures
 * in `hopeless`, which no second try would change.
 *
 * Rejects with the signal's reason when that is an `AppError`: somebody ended the wait on purpose. Otherwise, such as
 * after a time-out, rejects with `guest_not_ready`, which says what was seen last.
 */
export async function logIn(
  target: SshTarget,
  signal: AbortSignal,
  log: Log,
  hopeless: readonly SshFailureKind[] = [],
): Promise<SshConnection> {
  const started = performance.now();
  const handshake = new Growing(HANDSHAKE_MS);
  const pauseUnreachable = new Growing(PAUSE_UNREACHABLE_MS);
  const pauseAnswered = new Growing(PAUSE_ANSWERED_MS);
  let last: SshFailure | undefined;
  let attempts = 0;
  for (;;) {
    attempts += 1;
    try {
      const connection = await connectSsh(
        target,
        { connectMs: CONNECT_MS, handshakeMs: handshake.currentMs },
        signal,
      );
      log.debug(
        { host: target.host, attempts, duration_ms: performance.now() - started },
        "the guest let the daemon in",
      );
      return connection;
    } catch (error) {
      if (signal.aborted) throw endOfWait(target, signal.reason, last);
      if (!(error instanceof SshFailure)) throw error;
      if (hopeless.includes(error.kind))
        throw notReady("did not become ready", error.message, error.kind, error);
      if (error.kind !== last?.kind) log.debug({ host: target.host, attempts }, error.message);
      last = error;
    }
    if (last.kind === "timeout") handshake.take();
    const pauseMs = (last.kind === "unreachable" ? pauseUnreachable : pauseAnswered).take();
    try {
      await sleep(pauseMs, undefined, { signal });
    } catch {
      throw endOfWait(target, signal.reason, last);
    }
  }
}

function endOfWait(target: SshTarget, reason: unknown, last: SshFailure | undefined): unknown {
  if (reason instanceof AppError) return reason;
  const seen = last?.message ?? `${target.host} has not answered yet`;
  return notReady("did not become ready in time", seen, last?.kind ?? "nothing", reason);
}

function notReady(what: string, seen: string, last_seen: string, cause: unknown): AppError {
  return new AppError("guest_not_ready", `The guest ${what}: ${seen}.`, { details: { last_seen }, cause });
}
