import { chmodSync, chownSync, lstatSync, rmSync } from "node:fs";
import { createConnection, type Server } from "node:net";
import { errnoOf } from "../contract/errors.ts";

/** True when somebody answers on the socket. */
async function answers(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = createConnection({ path, timeout: 1000 });
  const end = (answer: boolean) => () => {
    socket.destroy();
    resolve(answer);
  };
  socket.once("connect", end(true)).once("error", end(false)).once("timeout", end(true));
  return await promise;
}

/**
 * Makes `server` listen on the Unix socket at `path` with mode 0660 and `gid`. A socket that a dead daemon left is replaced;
 * one that answers, or a file that is no socket, is left alone and refused with an Error.
 */
export async function listenOnSocket(server: Server, path: string, gid: number | undefined): Promise<void> {
  try {
    if (!lstatSync(path).isSocket()) throw new Error(`${path} exists and is not a socket: move it away`);
    if (await answers(path)) throw new Error(`another daemon answers on ${path}`);
    rmSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // Nobody but root until the mode is set: the socket's mode follows the umask.
  const umask = process.umask(0o177);
  server.once("error", reject);
  server.listen(path, resolve);
  process.umask(umask);
  await promise;
  server.off("error", reject);
  if (gid !== undefined) chownSync(path, 0, gid);
  chmodSync(path, 0o660);
}

/** Makes `server` listen on a TCP address. */
export async function listenOnTcp(server: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen({ host, port }, resolve);
  await promise;
  server.off("error", reject);
}
