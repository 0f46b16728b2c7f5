import { once } from "node:events";
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { connect, type Socket } from "node:net";

/** Opens the thing itself, not its content. Not among Node's constants; the same on x86-64 and arm64. */
const O_PATH = 0o10000000;

/** Where a VMM makes its API socket, inside its jail. */
export const API_SOCKET = "/run/api.sock";

/**
 * The API socket of one VMM, held open as an inode.
 *
 * The jail belongs to the VMM's user, who may put a link in the socket's place at any time. So the way to it is walked
 * once without following links, what was found is checked, and every connection goes to that inode through
 * /proc/self/fd. This also lifts the limit of 107 bytes on a socket's path.
 */
export class ApiSocket implements Disposable {
  readonly #fd: number;
  #closed = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Finds the socket in the jail whose root folder is `root`. Throws ENOENT while there is none yet,
   * ELOOP or ENOTDIR at a link, and a plain Error when it is no socket of `uid`.
   */
  static open(root: string, uid: number): ApiSocket {
    const { O_DIRECTORY, O_NOFOLLOW } = constants;
    const descend = (from: string, flags: number): number => openSync(from, O_PATH | O_NOFOLLOW | flags);
    const [, runName = "", socketName = ""] = API_SOCKET.split("/");
    const rootFd = descend(root, O_DIRECTORY);
    try {
      const runFd = descend(`/proc/self/fd/${rootFd}/${runName}`, O_DIRECTORY);
      try {
        const fd = descend(`/proc/self/fd/${runFd}/${socketName}`, 0);
        const stat = fstatSync(fd);
        if (stat.isSocket() && stat.uid === uid) return new ApiSocket(fd);
        closeSync(fd);
        throw new Error(`${API_SOCKET} in the jail is not a socket of uid ${uid}`);
      } finally {
        closeSync(runFd);
      }
    } finally {
      closeSync(rootFd);
    }
  }

  /** A new connection. Errors arrive as the socket's `error` event. */
  connect(): Socket {
    if (this.#closed) throw new Error("the API socket is closed");
    return connect({ path: `/proc/self/fd/${this.#fd}` });
  }

  /** A new connection, once it stands. Throws ECONNREFUSED while nobody listens. */
  async dial(): Promise<Socket> {
    const connection = this.connect();
    await once(connection, "connect");
    // How it ends later is told by its `close` event; without a listener an error would end the daemon.
    return connection.on("error", () => {});
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
