import type { GuestConfig, ReceiptEntry } from "../contract/machine.ts";

export interface IdentityRequest {
  readonly hostname: string;
  readonly default_user: string;
  readonly guest_config: GuestConfig;
  readonly resolvers: readonly string[];
}

/** A guest's new identity and the seed that carries it. */
export interface GuestIdentity {
  /** 32 lower-case hex digits. */
  readonly guest_machine_id: string;
  /** One line in OpenSSH's format: `ssh-ed25519 AAAA…`. */
  readonly ssh_host_public_key: string;
  /** The seed file, padded to its constant size. Holds private keys and tokens. */
  readonly seed: Uint8Array;
  readonly seed_sha256: string;
  /** The same facts, without secrets that the guest's own user should not have, for its metadata service. */
  readonly metadata: object;
}

/** How to reach one guest and know that it is the right one. */
export interface GuestAddress {
  readonly host: string;
  readonly ssh_host_public_key: string;
  /**
   * By which key it lets the daemon in: one of its own, derived from the daemon's and this machine-id; or a private key,
   * as a snapshot of another host carries it. Neither: the daemon's own key, for guests made before there were others.
   */
  readonly own_key_of?: string;
  readonly login_key?: string;
}

/** The seed of what a woken guest is to become. */
export interface NewSeed {
  readonly bytes: Uint8Array;
  readonly sha256: string;
  readonly hostname: string;
}

/** The door of the guest room. */
export interface Guests {
  /** Loads the daemon's own key, or makes it on the first start. */
  open(): Promise<void>;
  /** A new identity: keys made in process, nothing is written. Throws `bad_request` when the config does not fit the seed. */
  makeIdentity(request: IdentityRequest): Promise<GuestIdentity>;
  /**
   * Resolves when the guest's SSH answered with the host key it was given and let the daemon's key in.
   * Bounded by the caller's signal only. Rejects with the signal's reason when that is an `AppError`; with any
   * other reason, such as a time-out, with `guest_not_ready`, which says what was seen last.
   */
  waitReady(guest: GuestAddress, signal: AbortSignal): Promise<void>;
  /** The private key by which a guest with this machine-id lets the daemon in, in OpenSSH's format. */
  loginKey(guest_machine_id: string): string;
  /** The metadata that `makeIdentity` returned with this seed, for a machine that starts again. */
  metadataOf(seed: Uint8Array): Promise<object>;
  /**
   * Makes a guest that was woken from a snapshot another one: it is reached by what it was (`frozen`), and becomes what
   * `seed` says, so that `waitReady` with the new identity is the proof. Hostname, machine-id, host key, authorized keys,
   * clock, randomness, connections of the past, resolvers; the seed's marker is written, so that a reboot changes nothing.
   * Returns what was done and how, an entry for each of RECEIPT_ITEMS. Throws `guest_not_ready` when the guest cannot be
   * reached or an identity (hostname, machine-id, host key, authorized keys) could not be given, also when the signal
   * ended it, unless the signal's reason is an `AppError`; `snapshot_invalid` when the keys of `frozen` are no keys.
   */
  makeUnique(frozen: GuestAddress, seed: NewSeed, signal: AbortSignal): Promise<readonly ReceiptEntry[]>;
  /** Runs `sync` in the guest. Returns false when it could not be run within `timeoutMs`. */
  sync(guest: GuestAddress, timeoutMs: number): Promise<boolean>;
  /** Asks the guest to shut down cleanly so that its VMM exits. Returns false when it could not be asked within `timeoutMs`. */
  shutdown(guest: GuestAddress, timeoutMs: number): Promise<boolean>;
}

/** Kernel arguments that name the seed to our initrd: the seed's device in the guest and its digest. */
export function seedBootArgs(device: string, sha256: string): string {
  return `computer_host.seed=${device} computer_host.seed_digest=${sha256}`;
}
