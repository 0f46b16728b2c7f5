import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { GuestConfig } from "../../src/contract/machine.ts";
import { makeSshKey } from "../../src/guest/keys.ts";
import { makeSeed } from "../../src/guest/seed.ts";

/** A guest's identity and the files that prove it, in a test's folder. */
export interface TestIdentity {
  readonly hostname: string;
  readonly machineId: string;
  readonly seedPath: string;
  readonly seedSha256: string;
  readonly hostPublicKey: string;
  /** Lets its owner in as root. */
  readonly keyPath: string;
  /** Lets the daemon in as root. */
  readonly daemonKeyPath: string;
  readonly knownHostsPath: string;
}

/** Makes an identity with the daemon's own seed writer. */
export async function makeIdentity(
  folder: string,
  hostname: string,
  config: Omit<GuestConfig, "hostname" | "authorized_keys"> = {},
): Promise<TestIdentity> {
  const [hostKey, userKey, daemonKey] = await Promise.all([
    makeSshKey(hostname),
    makeSshKey("user"),
    makeSshKey("daemon"),
  ]);
  const machineId = randomBytes(16).toString("hex");
  const seed = await makeSeed({
    hostname,
    guest_machine_id: machineId,
    host_key: hostKey,
    default_user: "root",
    daemon_public_key: daemonKey.public_key,
    resolvers: ["192.0.2.53"],
    guest_config: { ...config, hostname, authorized_keys: [userKey.public_key] },
  });
  const path = (suffix: string) => join(folder, `${hostname}.${suffix}`);
  await writeFile(path("seed"), seed.bytes);
  await writeFile(path("key"), userKey.private_key, { mode: 0o600 });
  await writeFile(path("daemon-key"), daemonKey.private_key, { mode: 0o600 });
  await writeFile(path("known_hosts"), `172.16.0.2 ${hostKey.public_key}\n`);
  return {
    hostname,
    machineId,
    seedPath: path("seed"),
    seedSha256: seed.sha256,
    hostPublicKey: hostKey.public_key,
    keyPath: path("key"),
    daemonKeyPath: path("daemon-key"),
    knownHostsPath: path("known_hosts"),
  };
}
