import type { GuestAddress } from "../guest/types.ts";
import type { IdentityRecord } from "../model/records.ts";

/** How the daemon reaches the guest of this identity at `host`. */
export function addressOf(host: string, identity: IdentityRecord): GuestAddress {
  return {
    host,
    ssh_host_public_key: identity.ssh_host_public_key,
    ...(identity.own_login_key === true ? { own_key_of: identity.guest_machine_id } : {}),
  };
}
