import { join } from "node:path";

/** Where the daemon listens when it was started with the same environment: the contract fixes the names. */
export function defaultSocketPath(environment: Readonly<Record<string, string | undefined>>): string {
  const root = environment["FIRECRACKER_HOST_ROOT_DIR"];
  return join(root === undefined || root === "" ? "/var/lib/computer-host" : root, "firecracker-host.sock");
}
