import { randomUUID } from "node:crypto";
import type { Log } from "../system/log.ts";
import { loadOrMakeDaemonKey, makeSshKey } from "./keys.ts";
import type { SshKey } from "./openssh-key.ts";
import { waitReady } from "./readiness.ts";
import { makeSeed } from "./seed.ts";
import { askForReset, syncDisks } from "./tasks.ts";
import type { Guests } from "./types.ts";

export interface GuestsOptions {
  /** The daemon's root: the daemon's own key lies below it in `keys/`. */
  readonly rootDir: string;
  /** One line in OpenSSH's format: a CA whose users every guest lets in. */
  readonly loginCaPublicKey?: string | undefined;
  readonly log: Log;
  /** TCP port of the guests' sshd, for tests. Default 22. */
  readonly port?: number;
}

/** The guest room: identities, and what the daemon does inside guests over SSH. Nothing works before `open()`. */
export function createGuests(options: GuestsOptions): Guests {
  const { rootDir, loginCaPublicKey, log, port = 22 } = options;
  let loaded: SshKey | undefined;
  const daemonKey = (): SshKey => {
    if (loaded === undefined) throw new Error("the guest room is used before open()");
    return loaded;
  };
  return {
    open: async () => {
      loaded = await loadOrMakeDaemonKey(rootDir);
    },
    makeIdentity: async ({ hostname, default_user, guest_config, resolvers }) => {
      const guest_machine_id = randomUUID().replaceAll("-", "");
      const host_key = await makeSshKey(hostname);
      const seed = await makeSeed({
        hostname,
        guest_machine_id,
        host_key,
        default_user,
        daemon_public_key: daemonKey().public_key,
        ...(loginCaPublicKey === undefined ? {} : { login_ca_public_key: loginCaPublicKey }),
        resolvers,
        guest_config,
      });
      return {
        guest_machine_id,
        // Without the comment: clients compare this line with what they see on the wire.
        ssh_host_public_key: host_key.public_key.split(" ").slice(0, 2).join(" "),
        seed: seed.bytes,
        seed_sha256: seed.sha256,
      };
    },
    waitReady: (guest, signal) => waitReady({ ...guest, port, daemonKey: daemonKey() }, signal, log),
    sync: (guest, timeoutMs) => syncDisks({ ...guest, port, daemonKey: daemonKey() }, timeoutMs, log),
    shutdown: (guest, timeoutMs) => askForReset({ ...guest, port, daemonKey: daemonKey() }, timeoutMs, log),
  };
}
