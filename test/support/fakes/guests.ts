import { createHash } from "node:crypto";
import { AppError } from "../../../src/contract/errors.ts";
import { RECEIPT_ITEMS, type ReceiptEntry } from "../../../src/contract/machine.ts";
import type {
  GuestAddress,
  GuestIdentity,
  Guests,
  IdentityRequest,
  NewSeed,
} from "../../../src/guest/types.ts";

/** Guests that are ready as soon as they are asked, unless told otherwise. */
export class FakeGuests implements Guests {
  #made = 0;
  /** Addresses that never become ready. */
  readonly neverReady = new Set<string>();
  everReady = true;
  canSync = true;
  canShutDown = true;
  /** Every call that made a woken guest another one, also those that failed. */
  readonly madeUnique: { frozen: GuestAddress; seed: NewSeed }[] = [];
  /** Addresses of woken guests that cannot be given an identity. */
  readonly neverUnique = new Set<string>();
  canMakeUnique = true;
  /** Addresses of woken guests that say nothing until the caller's signal ends it. */
  readonly silentWhenWoken = new Set<string>();
  everAnswersWhenWoken = true;
  /** What a clean shutdown does to the VMM behind the guest. */
  onShutdown: (guest: GuestAddress) => void = () => {};

  open(): Promise<void> {
    return Promise.resolve();
  }

  makeIdentity(request: IdentityRequest): Promise<GuestIdentity> {
    this.#made += 1;
    const seed = Buffer.from(JSON.stringify({ ...request, made: this.#made }));
    return Promise.resolve({
      guest_machine_id: createHash("md5").update(seed).digest("hex"),
      ssh_host_public_key: `ssh-ed25519 FAKE${this.#made}`,
      seed,
      seed_sha256: createHash("sha256").update(seed).digest("hex"),
      metadata: metadataIn(seed),
    });
  }

  metadataOf(seed: Uint8Array): Promise<object> {
    return Promise.resolve(metadataIn(seed));
  }

  loginKey(guest_machine_id: string): string {
    return `private key of ${guest_machine_id}`;
  }

  waitReady(guest: GuestAddress, signal: AbortSignal): Promise<void> {
    if (this.everReady && !this.neverReady.has(guest.host)) return Promise.resolve();
    return untilAborted(signal);
  }

  async makeUnique(
    frozen: GuestAddress,
    seed: NewSeed,
    signal: AbortSignal,
  ): Promise<readonly ReceiptEntry[]> {
    this.madeUnique.push({ frozen, seed });
    signal.throwIfAborted();
    if (!this.everAnswersWhenWoken || this.silentWhenWoken.has(frozen.host)) await untilAborted(signal);
    if (!this.canMakeUnique || this.neverUnique.has(frozen.host)) {
      throw new AppError("guest_not_ready", "The woken guest could not be given an identity of its own.");
    }
    return RECEIPT_ITEMS.map((item) => ({ item, done: true, how: `set by the fake, ${seed.hostname}` }));
  }

  sync(): Promise<boolean> {
    return Promise.resolve(this.canSync);
  }

  shutdown(guest: GuestAddress): Promise<boolean> {
    if (this.canShutDown) this.onShutdown(guest);
    return Promise.resolve(this.canShutDown);
  }
}

/** What the fake's seed says, without what it must not serve. Of bytes that are no seed of the fake: nothing. */
function metadataIn(seed: Uint8Array): object {
  let hostname = "unknown";
  try {
    hostname = (JSON.parse(Buffer.from(seed).toString()) as IdentityRequest).hostname;
  } catch {
    // A test's own bytes.
  }
  return { latest: { "meta-data": { "local-hostname": hostname } } };
}

function untilAborted(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  const refuse = (): void => {
    reject(signal.reason instanceof Error ? signal.reason : new Error("not ready"));
  };
  if (signal.aborted) refuse();
  else signal.addEventListener("abort", refuse, { once: true });
  return promise;
}
