import { hkdfSync } from "node:crypto";
import { encodeSshKey, privateKeyOf, type SshKey, secretOf } from "./openssh-key.ts";

/** Part of the derivation: with another one, the guests that are there would not let their daemon in any more. */
const LABEL = "computer-host login key v1";
const SECRET_BYTES = 32;
const CHECK_BYTES = 4;

/**
 * The key by which one guest lets the daemon in: derived from the daemon's own and the guest's machine-id, so that it
 * is kept nowhere, and that whoever holds it, such as the receiver of a snapshot, gets into no other guest. The same
 * input gives the same text.
 */
export function deriveLoginKey(daemonKey: SshKey, guest_machine_id: string): SshKey {
  const info = `${LABEL}\0${guest_machine_id}`;
  const bytes = Buffer.from(
    hkdfSync("sha256", secretOf(daemonKey), Buffer.alloc(0), info, SECRET_BYTES + CHECK_BYTES),
  );
  const secret = bytes.subarray(0, SECRET_BYTES);
  return encodeSshKey(privateKeyOf(secret), "computer-host", bytes.subarray(SECRET_BYTES));
}
