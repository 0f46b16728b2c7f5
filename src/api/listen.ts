import { chmodSync, chownSync, lstatSync, rmSync } from "node:fs";
import { createConnection, type Server } from "node:net";
import { errnoOf } from "../contract/errors.ts";

/** Listens, or throws. What fails later, such as an accept without a free descriptor, is told to `onError` and ends nothing. */
async function listening(
  server: Server,
  where: { path: string } | { host: string; port: number },
  onError: (error: Error) => void,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(where, resolve);
  await promise;
  server.off("error", reject);
  server.on("error", onError);
}

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
export async function listenOnSocket(
  server: Server,
  path: string,
  gid: number | undefined,
  onError: (error: Error) => void,
): Promise<void> {
  try {
    if (!lstatSync(path).isSocket()) throw new Error(`${path} exists and is not a socket: move it away`);
    if (await answers(path)) throw new Error(`another daemon answers on ${path}`);
    rmSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  // Nobody but root until the mode is set: the socket's mode follows the umask, and is made before the first wait.
  const umask = process.umask(0o177);
  const listens = listening(server, { path }, onError);
  process.umask(umask);
  await listens;
  if (gid !== undefined) chownSync(path, 0, gid);
  chmodSync(path, 0o660);
}

/** Makes `server` listen on a TCP address. */
export async function listenOnTcp(
  server: Server,
  host: string,
  port: number,
  onError: (error: Error) => void,
): Promise<void> {
  await listening(server, { host, port }, onError);
}
