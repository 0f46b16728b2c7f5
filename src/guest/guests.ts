import { randomUUID } from "node:crypto";
import { AppError, messageOf } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";
import { loadOrMakeDaemonKey, makeSshKey } from "./keys.ts";
import { deriveLoginKey } from "./login-key.ts";
import { metadataOf } from "./metadata.ts";
import { decodeSshKey, publicKeyBlob, type SshKey } from "./openssh-key.ts";
import { waitReady } from "./readiness.ts";
import { makeSeed } from "./seed.ts";
import type { SshTarget } from "./ssh.ts";
import { askForReset, syncDisks } from "./tasks.ts";
import type { GuestAddress, Guests } from "./types.ts";
import { makeUnique } from "./unique/unique.ts";

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
  const loginKey = (guest_machine_id: string): string =>
    deriveLoginKey(daemonKey(), guest_machine_id).private_key;
  const target = ({ host, ssh_host_public_key, own_key_of, login_key }: GuestAddress): SshTarget => ({
    host,
    port,
    ssh_host_public_key,
    login_key: login_key ?? (own_key_of === undefined ? daemonKey().private_key : loginKey(own_key_of)),
  });
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
        daemon_public_key: deriveLoginKey(daemonKey(), guest_machine_id).public_key,
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
        metadata: await metadataOf(seed.bytes),
      };
    },
    loginKey,
    metadataOf,
    waitReady: (guest, signal) => waitReady(target(guest), signal, log),
    makeUnique: async (frozen, seed, signal) => {
      checkKeys(frozen);
      return await makeUnique(target(frozen), seed, signal, log);
    },
    sync: (guest, timeoutMs) => syncDisks(target(guest), timeoutMs, log),
    shutdown: (guest, timeoutMs) => askForReset(target(guest), timeoutMs, log),
  };
}

/** A frozen guest's keys may come from another host, as its snapshot carries them. */
function checkKeys({ ssh_host_public_key, login_key }: GuestAddress): void {
  try {
    publicKeyBlob(ssh_host_public_key);
    if (login_key !== undefined) decodeSshKey(login_key);
  } catch (error) {
    throw new AppError(
      "snapshot_invalid",
      `The keys by which the frozen guest is reached cannot be used: ${messageOf(error)}.`,
      { cause: error },
    );
  }
}
