import { createHash } from "node:crypto";
import type { GuestAddress, GuestIdentity, Guests, IdentityRequest } from "../../../src/guest/types.ts";

/** Guests that are ready as soon as they are asked, unless told otherwise. */
export class FakeGuests implements Guests {
  #made = 0;
  /** Addresses that never become ready. */
  readonly neverReady = new Set<string>();
  everReady = true;
  canSync = true;
  canShutDown = true;
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
    });
  }

  waitReady(guest: GuestAddress, signal: AbortSignal): Promise<void> {
    if (this.everReady && !this.neverReady.has(guest.host)) return Promise.resolve();
    const { promise, reject } = Promise.withResolvers<void>();
    const refuse = (): void => {
      reject(signal.reason instanceof Error ? signal.reason : new Error("not ready"));
    };
    if (signal.aborted) refuse();
    else signal.addEventListener("abort", refuse, { once: true });
    return promise;
  }

  sync(): Promise<boolean> {
    return Promise.resolve(this.canSync);
  }

  shutdown(guest: GuestAddress): Promise<boolean> {
    if (this.canShutDown) this.onShutdown(guest);
    return Promise.resolve(this.canShutDown);
  }
}
