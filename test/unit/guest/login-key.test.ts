import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createGuests } from "../../../src/guest/guests.ts";
import { loadOrMakeDaemonKey, makeSshKey } from "../../../src/guest/keys.ts";
import { deriveLoginKey } from "../../../src/guest/login-key.ts";
import { decodeSshKey, encodeSshKey, privateKeyOf, type SshKey } from "../../../src/guest/openssh-key.ts";
import { seedFiles } from "../../../src/guest/seed-files.ts";
import type { GuestIdentity, Guests } from "../../../src/guest/types.ts";
import { silentLog } from "../../../src/system/log.ts";
import { freePort, startSshGuest } from "./support/ssh-guest.ts";

let rootDir: string;
let daemon: SshKey;

before(async () => {
  rootDir = mkdtempSync(join(tmpdir(), "guest-login-"));
  daemon = await loadOrMakeDaemonKey(rootDir);
});

after(() => rmSync(rootDir, { recursive: true }));

async function room(port?: number): Promise<Guests> {
  const guests = createGuests({ rootDir, log: silentLog, port: port ?? (await freePort()) });
  await guests.open();
  return guests;
}

async function identity(guests: Guests): Promise<GuestIdentity> {
  return await guests.makeIdentity({
    hostname: "web",
    default_user: "root",
    guest_config: {},
    resolvers: [],
  });
}

describe("a guest's login key", () => {
  it("is the one that guests of earlier versions let in", () => {
    const fixed = encodeSshKey(privateKeyOf(Buffer.alloc(32, 7)), "computer-host", Buffer.alloc(4));
    const key = deriveLoginKey(fixed, "0123456789abcdef0123456789abcdef");
    // Worked out with OpenSSL and RFC 5869.
    assert.equal(
      key.public_key,
      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIAK/rRisaPqUPbg85qrHZW4D9JSjLE7Gh2Kb/uzOU+3 computer-host",
    );
  });

  it("is the same text each time, and another one for another guest or another daemon", async () => {
    const [id, other] = ["a".repeat(32), "b".repeat(32)];
    assert.deepEqual(deriveLoginKey(daemon, id), deriveLoginKey(daemon, id));
    const keys = [
      daemon,
      deriveLoginKey(daemon, id),
      deriveLoginKey(daemon, other),
      deriveLoginKey(await makeSshKey("another daemon"), id),
    ];
    assert.equal(new Set(keys.map(({ public_key }) => public_key.split(" ")[1])).size, keys.length);
  });

  it("is a whole key to ssh-keygen", () => {
    const key = deriveLoginKey(daemon, "c".repeat(32));
    assert.deepEqual(decodeSshKey(key.private_key), key);
    const file = join(rootDir, "derived");
    writeFileSync(file, key.private_key, { mode: 0o600 });
    const derived = execFileSync("ssh-keygen", ["-y", "-f", file], { encoding: "utf8" });
    assert.equal(derived.trim(), key.public_key);
  });

  it("is what the seed lets in as root, and the daemon's own is not", async () => {
    const guests = await room();
    const made = await identity(guests);
    const files = await seedFiles(made.seed);
    const key = decodeSshKey(guests.loginKey(made.guest_machine_id));
    assert.equal(files.get("root/.ssh/authorized_keys"), `${key.public_key}\n`);
    assert.equal(files.get("etc/computer-host/daemon-key.pub"), `${key.public_key}\n`);
    const daemonsOwn = daemon.public_key.split(" ")[1] ?? assert.fail();
    assert.doesNotMatch(Buffer.from(made.seed).toString("latin1"), new RegExp(RegExp.escape(daemonsOwn)));
  });
});

describe("the key for a call", () => {
  it("is the one the address names: derived, given, or the daemon's own", async () => {
    const id = "d".repeat(32);
    const host_key = await makeSshKey("guest");
    const given = await makeSshKey("from another host");
    const derived = deriveLoginKey(daemon, id);
    for (const [authorized, way] of [
      [derived, { own_key_of: id }],
      [given, { login_key: given.private_key }],
      [daemon, {}],
    ] as const) {
      await using guest = await startSshGuest({ host_key, authorized_key: authorized.public_key });
      const guests = await room(guest.port);
      const base = { host: "127.0.0.1", ssh_host_public_key: host_key.public_key };
      await guests.waitReady({ ...base, ...way }, AbortSignal.timeout(5000));
      assert.equal(await guests.sync({ ...base, ...way }, 2000), true);
      assert.equal(await guests.shutdown({ ...base, ...way }, 2000), true);
      const wrong = authorized === derived ? {} : { own_key_of: id };
      assert.equal(await guests.sync({ ...base, ...wrong }, 2000), false);
    }
  });
});
