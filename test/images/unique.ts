import assert from "node:assert/strict";
import { RECEIPT_ITEMS, type ReceiptEntry } from "../../src/contract/machine.ts";
import type { TestGuest } from "./guest.ts";
import type { TestIdentity } from "./identity.ts";

/** What the receipt must say of a guest whose clock was wrong; a test may know better. */
const EXPECTED: Readonly<Record<ReceiptEntry["item"], RegExp>> = {
  hostname: /^set in the kernel/,
  machine_id: /^written to \/etc\/machine-id$/,
  ssh_host_key: /^written; sshd begins anew with it$/,
  authorized_keys: /^replaced/,
  clock: /^stepped by \+\d{9}\.\d{3} s, then at most \d+ ms from the host's time$/,
  randomness: /^bytes of the host credited .* by perl; VMGenID: the kernel has no driver$/,
  connections: /^there were none$/,
  resolvers: /^written to \/etc\/resolv\.conf$/,
};

/** Makes the running guest another one and looks at it from outside, by the new host key, and from inside. */
export async function assertBecomes(
  guest: TestGuest,
  identity: TestIdentity,
  different: Partial<Record<ReceiptEntry["item"], string>> = {},
): Promise<void> {
  const listeners = "pidof sshd | tr ' ' '\\n' | sort -n | head -n 1";
  const before = await guest.ssh(listeners);
  const receipt = await guest.become(identity);
  assert.deepEqual(
    receipt.map(({ item }) => item),
    RECEIPT_ITEMS,
  );
  for (const { item, done, how } of receipt) {
    assert.ok(done, `${item}: ${how}`);
    if (different[item] === undefined) assert.match(how, EXPECTED[item]);
    else assert.equal(how, different[item]);
  }
  const found = await guest.ask({
    hostname: "hostname",
    machineId: "cat /etc/machine-id",
    resolv: "cat /etc/resolv.conf",
    marker: "cat /var/lib/computer-host/seed",
    seconds: "date +%s",
    sshd: listeners,
  });
  const { seconds, ...rest } = found;
  assert.deepEqual(rest, {
    hostname: identity.hostname,
    machineId: identity.machineId,
    resolv: "nameserver 192.0.2.53",
    marker: identity.seedSha256,
    sshd: before,
  });
  assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 10, `the guest's time is ${seconds}`);
}
