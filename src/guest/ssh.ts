import { connect, type Socket } from "node:net";
import ssh2 from "ssh2";
import { publicKeyBlob } from "./openssh-key.ts";
import { type CommandEnd, type CommandOptions, runCommand } from "./ssh-command.ts";
import { SshFailure } from "./ssh-failure.ts";

/** One guest's sshd, and the keys of both sides. */
export interface SshTarget {
  readonly host: string;
  readonly port: number;
  readonly ssh_host_public_key: string;
  /** The private key that root lets in, in OpenSSH's format. */
  readonly login_key: string;
}

export interface SshLimits {
  /** For the TCP connection. */
  readonly connectMs: number;
  /** From the TCP connection to the end of the login. */
  readonly handshakeMs: number;
}

export interface SshConnection extends Disposable {
  /**
   * Runs `command` in the login shell. Its output is thrown away unless `options` has it answered.
   * Rejects with an `SshFailure` when the guest does not take it, with the signal's reason on abort.
   */
  run(command: string, signal: AbortSignal, options?: CommandOptions): Promise<CommandEnd>;
}

/**
 * A SYN that a guest misses while it boots is sent again only after a second, and a busy guest takes long to
 * answer one: so a second one follows soon, beside the first, and whichever is answered first is used.
 */
const NEXT_SYN_MS = 250;

/** How long a guest may take to close its side in turn. */
const FAREWELL_MS = 2_000;

/** A guest may say no more than this in one connection: whatever lies beyond is an attack. */
const RECEIVE_LIMIT_BYTES = 1024 * 1024;

/** Only what a guest's OpenSSH of the last ten years offers, and nothing that a downgrade could weaken. */
const ALGORITHMS = {
  kex: ["curve25519-sha256", "curve25519-sha256@libssh.org"],
  serverHostKey: ["ssh-ed25519"],
  cipher: ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"],
  // AEAD ciphers bring their own; the protocol still wants a name agreed.
  hmac: ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"],
  compress: ["none"],
} satisfies ssh2.Algorithms;

/**
 * Logs in as root, once, to a server that proves to hold exactly the expected host key.
 * Rejects with an `SshFailure`, or with the signal's reason. Nothing is left open when it rejects.
 */
export async function connectSsh(
  target: SshTarget,
  limits: SshLimits,
  signal: AbortSignal,
): Promise<SshConnection> {
  const expected = publicKeyBlob(target.ssh_host_public_key);
  const socket = await openSocket(target, limits.connectMs, signal);
  const client = new ssh2.Client();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let refusal: SshFailure | undefined;
  // Stays for the life of the client: what fails after the login shows itself to the command that is running.
  client.on("error", (error) => reject(refusal ?? failureOf(target, error)));
  client.once("close", () =>
    reject(refusal ?? new SshFailure("closed", `${target.host} closed the connection before the login`)),
  );
  client.once("ready", resolve);
  const timer = setTimeout(() => {
    reject(
      new SshFailure("timeout", `${target.host} did not finish the SSH login in ${limits.handshakeMs} ms`),
    );
  }, limits.handshakeMs);
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    client.connect({
      sock: socket,
      username: "root",
      privateKey: target.login_key,
      authHandler: ["publickey"],
      algorithms: ALGORITHMS,
      readyTimeout: 0,
      hostVerifier: (key: Buffer) => {
        if (key.equals(expected)) return true;
        refusal = new SshFailure(
          "other_host_key",
          `the SSH server at ${target.host} has another host key than this guest was given (it shows ssh-ed25519 ${key.toString("base64")})`,
        );
        return false;
      },
    });
    // After connect(), which pauses the socket: a listener before would start it and lose the first bytes.
    socket.on("data", () => {
      if (socket.bytesRead > RECEIVE_LIMIT_BYTES) socket.destroy();
    });
    await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
  return {
    run: (command, runSignal, options) => runCommand(client, target.host, command, runSignal, options),
    [Symbol.dispose]: () => {
      // Closing both halves at once would reset the connection, which sshd reports on the guest's console.
      client.end();
      const farewell = setTimeout(() => socket.destroy(), FAREWELL_MS).unref();
      socket.once("close", () => clearTimeout(farewell));
    },
  };
}

/** The first of several TCP connections that comes up; the others are closed. */
async function openSocket(target: SshTarget, limitMs: number, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const sockets = new Set<Socket>();
  const open = (): void => {
    const socket = connect({ host: target.host, port: target.port, noDelay: true });
    sockets.add(socket);
    socket.once("connect", () => resolve(socket));
    // Stays on the one that is used: an error without a listener would end the process.
    socket.on("error", (error) =>
      reject(new SshFailure("unreachable", `${target.host} cannot be reached: ${error.message}`, error)),
    );
  };
  const onAbort = (): void => reject(signal.reason);
  const again = setInterval(open, NEXT_SYN_MS);
  const timer = setTimeout(() => {
    reject(new SshFailure("unreachable", `${target.host} did not answer within ${limitMs} ms`));
  }, limitMs);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    open();
    const first = await promise;
    sockets.delete(first);
    return first;
  } finally {
    clearInterval(again);
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
    for (const socket of sockets) socket.destroy();
  }
}

/** What ssh2 calls the place of an error is a field of it. */
function failureOf(target: SshTarget, error: Error & { level?: string }): SshFailure {
  return error.level === "client-authentication"
    ? new SshFailure("login_refused", `${target.host} does not let the daemon log in as root`, error)
    : new SshFailure("closed", `the SSH handshake with ${target.host} failed: ${error.message}`, error);
}
