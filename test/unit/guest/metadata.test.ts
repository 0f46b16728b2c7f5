import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createGuests } from "../../../src/guest/guests.ts";
import { SEED_BYTES } from "../../../src/guest/seed.ts";
import { seedFiles, withoutPadding } from "../../../src/guest/seed-files.ts";
import type { Guests, IdentityRequest } from "../../../src/guest/types.ts";
import { silentLog } from "../../../src/system/log.ts";

let rootDir: string;
let guests: Guests;

before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "guest-metadata-"));
  guests = createGuests({ rootDir, loginCaPublicKey: "ssh-ed25519 CCCC host", log: silentLog });
  await guests.open();
});

after(() => rm(rootDir, { recursive: true }));

const full: IdentityRequest = {
  hostname: "web.example",
  default_user: "debian",
  resolvers: ["192.0.2.53", "192.0.2.54"],
  guest_config: {
    authorized_keys: ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"],
    trusted_user_ca_keys: ["ssh-ed25519 DDDD mine"],
    login_webhook: { url: "https://hook.example/secret-path", bearer_token: "very-secret" },
  },
};

describe("a guest's metadata", () => {
  it("says who it is and who may log in", async () => {
    const made = await guests.makeIdentity(full);
    assert.deepEqual(made.metadata, {
      latest: {
        "meta-data": {
          "instance-id": made.guest_machine_id,
          "machine-id": made.guest_machine_id,
          hostname: "web.example",
          "local-hostname": "web.example",
          "ssh-host-public-key": made.ssh_host_public_key,
          "public-keys": {
            "0": { "openssh-key": "ssh-ed25519 AAAA one" },
            "1": { "openssh-key": "ssh-ed25519 BBBB two" },
          },
          "trusted-user-ca-keys": { "0": "ssh-ed25519 DDDD mine", "1": "ssh-ed25519 CCCC host" },
          resolvers: { "0": "192.0.2.53", "1": "192.0.2.54" },
        },
      },
    });
  });

  it("holds no private key, no token and no URL that may be one", async () => {
    const { metadata } = await guests.makeIdentity(full);
    assert.doesNotMatch(JSON.stringify(metadata), /PRIVATE|secret|hook/);
  });

  it("names the keys of a user who is root without the daemon's own", async () => {
    const { metadata } = await guests.makeIdentity({ ...full, default_user: "root", resolvers: [] });
    const { "public-keys": keys, resolvers } = (
      metadata as { latest: { "meta-data": Record<string, Record<string, unknown>> } }
    ).latest["meta-data"];
    assert.deepEqual(Object.values(keys ?? {}), [
      { "openssh-key": "ssh-ed25519 AAAA one" },
      { "openssh-key": "ssh-ed25519 BBBB two" },
    ]);
    assert.deepEqual(resolvers, {});
  });

  it("is the same again from the seed, and strings all the way down", async () => {
    const made = await guests.makeIdentity(full);
    assert.deepEqual(await guests.metadataOf(made.seed), made.metadata);
    const check = (tree: unknown): void => {
      if (typeof tree === "object" && tree !== null) Object.values(tree).forEach(check);
      else assert.equal(typeof tree, "string");
    };
    check(made.metadata);
  });

  it("is not read from bytes that are no seed", async () => {
    for (const bytes of [
      new Uint8Array(0),
      new Uint8Array(SEED_BYTES + 1),
      new Uint8Array(SEED_BYTES),
      randomBytes(SEED_BYTES),
    ]) {
      await assert.rejects(guests.metadataOf(bytes), /not a seed/);
    }
  });
});

describe("a seed without its padding", () => {
  it("is the same archive in much less", async () => {
    const { seed } = await guests.makeIdentity(full);
    const short = withoutPadding(seed);
    assert.ok(short.length < 20_000 && short.length % 512 === 0, `${short.length} bytes`);
    const padded = Buffer.alloc(SEED_BYTES);
    padded.set(short);
    assert.deepEqual(await seedFiles(padded), await seedFiles(seed));
    assert.ok(
      Buffer.from(short.subarray(-1024)).equals(Buffer.alloc(1024)),
      "a tar ends with two empty blocks",
    );
  });
});
