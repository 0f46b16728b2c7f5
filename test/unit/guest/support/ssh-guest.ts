import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import ssh2 from "ssh2";
import { makeSshKey } from "../../../../src/guest/keys.ts";
import type { SshKey } from "../../../../src/guest/openssh-key.ts";

export interface SshGuest extends AsyncDisposable {
  readonly port: number;
  readonly host_key: SshKey;
  /** Commands that were taken, in their order. */
  readonly commands: string[];
  /** Connections since the start. */
  readonly connections: number;
}

export interface SshGuestOptions {
  readonly host_key?: SshKey;
  /** Public key line that root may log in with; without it nobody may. */
  readonly authorized_key?: string;
  /** Called with each command; the default ends it with 0. */
  readonly onCommand?: (channel: ssh2.ServerChannel, connection: ssh2.Connection, command: string) => void;
  readonly refuseCommands?: boolean;
  /** How long a login takes. */
  readonly delayMs?: number;
  /** Default: a free one. */
  readonly port?: number;
}

/** A guest's sshd in this process, on a free port of 127.0.0.1. */
export async function startSshGuest(options: SshGuestOptions = {}): Promise<SshGuest> {
  const host_key = options.host_key ?? (await makeSshKey("guest"));
  const allowed = options.authorized_key?.split(" ")[1];
  const commands: string[] = [];
  let connections = 0;
  const server = new ssh2.Server({ hostKeys: [host_key.private_key] }, (connection) => {
    connections += 1;
    connection.on("error", () => {});
    connection.on("authentication", (context) => {
      const right =
        context.method === "publickey" &&
        context.username === "root" &&
        context.key.data.toString("base64") === allowed;
      if (right) setTimeout(() => context.accept(), options.delayMs ?? 0);
      else context.reject(["publickey"]);
    });
    connection.on("session", (accept) => {
      accept().on("exec", (acceptCommand, rejectCommand, info) => {
        if (options.refuseCommands === true) {
          rejectCommand();
          return;
        }
        commands.push(info.command);
        const channel = acceptCommand();
        channel.on("error", () => {});
        if (options.onCommand === undefined) {
          channel.exit(0);
          channel.end();
        } else options.onCommand(channel, connection, info.command);
      });
    });
  });
  const sockets = new Set<Socket>();
  const listener = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {}).once("close", () => sockets.delete(socket));
    server.injectSocket(socket);
  });
  const port = await listen(listener, options.port);
  return {
    port,
    host_key,
    commands,
    get connections() {
      return connections;
    },
    [Symbol.asyncDispose]: () => close(listener, sockets),
  };
}

/** A TCP server that is no sshd: `onConnection` says what it does. */
export async function startTcpServer(
  onConnection: (socket: Socket) => void,
): Promise<AsyncDisposable & { readonly port: number }> {
  const sockets = new Set<Socket>();
  const listener = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {}).once("close", () => sockets.delete(socket));
    onConnection(socket);
  });
  const port = await listen(listener);
  return { port, [Symbol.asyncDispose]: () => close(listener, sockets) };
}

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  await using server = await startTcpServer(() => {});
  return server.port;
}

async function listen(listener: ReturnType<typeof createServer>, wanted = 0): Promise<number> {
  listener.listen(wanted, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

async function close(listener: ReturnType<typeof createServer>, sockets: Set<Socket>): Promise<void> {
  for (const socket of sockets) socket.destroy();
  listener.close();
  await once(listener, "close");
}
