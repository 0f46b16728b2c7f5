import { messageOf } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";
import { connectSsh, type SshTarget } from "./ssh.ts";
import type { CommandEnd } from "./ssh-command.ts";

/** A running guest answers at once; this leaves room for one SYN that got lost. */
const CONNECT_MS = 3_000;

/**
 * A reset, since only that ends Firecracker: a guest that powers off leaves its VMM running. Both inits take
 * `reboot` as a request and shut down cleanly first. Without a HUP and without pipes to lose, it goes on when
 * the shutdown that it asked for takes this connection away.
 */
const RESET_COMMAND = [
  "trap '' HUP",
  "exec </dev/null >/dev/null 2>&1",
  "PATH=$PATH:/usr/sbin:/sbin",
  "command -v reboot && exec reboot",
  "exec busybox reboot",
].join("; ");

/** Writes the guest's caches out. Returns false when it could not be done within `timeoutMs`. */
export async function syncDisks(target: SshTarget, timeoutMs: number, log: Log): Promise<boolean> {
  const { end, reason } = await attempt(target, "sync", timeoutMs);
  if (typeof end === "object" && end.code === 0) return true;
  log.warn({ host: target.host, end, reason }, "the guest's disks could not be synced");
  return false;
}

/**
 * Asks the guest's init for a reset. Returns true once the guest took the request, also when its connection
 * drops after that; false when it could not be asked within `timeoutMs` or has no `reboot`.
 */
export async function askForReset(target: SshTarget, timeoutMs: number, log: Log): Promise<boolean> {
  const { taken, end, reason } = await attempt(target, RESET_COMMAND, timeoutMs);
  const refused = typeof end === "object" && end.code !== 0;
  if (taken && !refused) return true;
  log.warn({ host: target.host, end, reason }, "the guest could not be asked to shut down");
  return false;
}

interface Attempt {
  readonly taken: boolean;
  readonly end?: CommandEnd;
  /** Why there is no end. */
  readonly reason?: string;
}

async function attempt(target: SshTarget, command: string, timeoutMs: number): Promise<Attempt> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(new Error(`no end within ${timeoutMs} ms`)), timeoutMs);
  let taken = false;
  try {
    const limits = { connectMs: Math.min(CONNECT_MS, timeoutMs), handshakeMs: timeoutMs };
    using connection = await connectSsh(target, limits, limit.signal);
    const end = await connection.run(command, limit.signal, {
      onTaken: () => {
        taken = true;
      },
    });
    return { taken, end };
  } catch (error) {
    return { taken, reason: messageOf(error) };
  } finally {
    clearTimeout(timer);
  }
}
