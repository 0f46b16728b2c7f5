import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import ssh2 from "ssh2";
import { loadOrMakeDaemonKey, makeSshKey } from "../../../src/guest/keys.ts";
import { decodeSshKey, publicKeyBlob } from "../../../src/guest/openssh-key.ts";

async function temporaryRoot(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "guest-keys-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

describe("a key made in process", () => {
  it("reads back as the same key, again and again", async () => {
    for (let round = 0; round < 50; round += 1) {
      const key = await makeSshKey("a".repeat(round));
      assert.deepEqual(decodeSshKey(key.private_key), key);
    }
  });

  it("is what ssh2 and ssh-keygen take for an OpenSSH key", async () => {
    await using root = await temporaryRoot();
    const key = await makeSshKey("somewhere");
    const parsed = ssh2.utils.parseKey(key.private_key);
    assert.ok(!(parsed instanceof Error));
    assert.deepEqual(parsed.getPublicSSH(), publicKeyBlob(key.public_key));
    const file = join(root.path, "key");
    await writeFile(file, key.private_key, { mode: 0o600 });
    const derived = execFileSync("ssh-keygen", ["-y", "-f", file], { encoding: "utf8" });
    assert.equal(derived.trim(), key.public_key);
  });

  it("is another one each time", async () => {
    const [one, other] = await Promise.all([makeSshKey("x"), makeSshKey("x")]);
    assert.notEqual(one.public_key, other.public_key);
  });

  it("is refused when any byte of it was changed", async () => {
    const { private_key } = await makeSshKey("x");
    const lines = private_key.trim().split("\n");
    const encoded = Buffer.from(lines.slice(1, -1).join(""), "base64");
    // The last 8 bytes may be comment and padding: they carry no key.
    for (let offset = 0; offset < encoded.length - 8; offset += 1) {
      const damaged = Buffer.from(encoded);
      damaged.writeUInt8(damaged.readUInt8(offset) ^ 0x40, offset);
      const wrapped = damaged.toString("base64").match(/.{1,70}/g) ?? [];
      const text = `${[lines[0], ...wrapped, lines.at(-1)].join("\n")}\n`;
      assert.throws(() => decodeSshKey(text), `a change of byte ${offset} goes unnoticed`);
    }
  });
});

describe("a public key line", () => {
  it("is refused when it is of another kind or cut short", () => {
    for (const line of ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ=="]) {
      assert.throws(() => publicKeyBlob(line), TypeError);
    }
  });
});

describe("the daemon's own key", () => {
  it("is made on the first start, readable by root alone, and the same on the next", async () => {
    await using root = await temporaryRoot();
    const first = await loadOrMakeDaemonKey(root.path);
    const path = join(root.path, "keys", "ssh_ed25519");
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.equal((await stat(join(root.path, "keys"))).mode & 0o777, 0o700);
    assert.equal(await readFile(`${path}.pub`, "utf8"), `${first.public_key}\n`);
    assert.deepEqual(await loadOrMakeDaemonKey(root.path), first);
  });

  it("gets its public half and its mode back when they were lost", async () => {
    await using root = await temporaryRoot();
    const first = await loadOrMakeDaemonKey(root.path);
    const path = join(root.path, "keys", "ssh_ed25519");
    await rm(`${path}.pub`);
    await rm(path);
    await writeFile(path, first.private_key, { mode: 0o644 });
    assert.deepEqual(await loadOrMakeDaemonKey(root.path), first);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.equal(await readFile(`${path}.pub`, "utf8"), `${first.public_key}\n`);
  });

  it("is never overwritten when it cannot be read", async () => {
    await using root = await temporaryRoot();
    await loadOrMakeDaemonKey(root.path);
    const path = join(root.path, "keys", "ssh_ed25519");
    await writeFile(path, "torn");
    await assert.rejects(loadOrMakeDaemonKey(root.path), /is damaged .*restore it from a backup/);
    assert.equal(await readFile(path, "utf8"), "torn");
  });
});
