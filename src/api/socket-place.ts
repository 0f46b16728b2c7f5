import { lstatSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { messageOf } from "../contract/errors.ts";
import type { Auditor } from "../host/context.ts";
import { listenOnSocket } from "./listen.ts";

type Items = Parameters<Auditor["mend"]>[0];
type Mended = Awaited<ReturnType<Auditor["mend"]>>;

/**
 * The API's place in the filesystem. Somebody may remove the socket's file: then nobody can connect any more, though the
 * server listens still. Another listener at the same path takes the connections for it from then on.
 */
export class SocketPlace implements Auditor {
  readonly #server: Server;
  readonly #path: string;
  readonly #gid: number | undefined;
  readonly #onError: (error: Error) => void;
  readonly #others: Server[] = [];
  #inode: number | undefined;

  constructor(server: Server, path: string, gid: number | undefined, onError: (error: Error) => void) {
    this.#server = server;
    this.#path = path;
    this.#gid = gid;
    this.#onError = onError;
  }

  /** Listens, or throws. */
  async listen(): Promise<void> {
    await listenOnSocket(this.#server, this.#path, this.#gid, this.#onError);
    this.#inode = inodeOf(this.#path);
  }

  inventory(): Items {
    const item = { resource: "socket", name: this.#path, holder: { of: "daemon" } } as const;
    const found = inodeOf(this.#path);
    if (found === undefined) return [{ ...item, status: "missing" }];
    return found === this.#inode
      ? [{ ...item, status: "ok" }]
      : [{ ...item, status: "altered", detail: "something else has taken its place" }];
  }

  async mend(items: Items): Promise<Mended> {
    const own = items.find(({ resource }) => resource === "socket");
    if (own === undefined) return [];
    const told = { resource: "socket", name: this.#path, action: "listens again" } as const;
    const other = createServer((connection) => this.#server.emit("connection", connection));
    try {
      // Whatever is there and is no socket, or answers, is left alone.
      await listenOnSocket(other, this.#path, this.#gid, this.#onError);
    } catch (error) {
      return [{ ...told, ok: false, reason: messageOf(error) }];
    }
    this.#inode = inodeOf(this.#path);
    this.#others.push(other);
    return [{ ...told, ok: true }];
  }

  /** Takes no more connections at places that came later; those that are open are the server's to end. */
  close(): void {
    for (const other of this.#others) other.close();
  }
}

function inodeOf(path: string): number | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.ino;
}
