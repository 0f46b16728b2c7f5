import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import * as fc from "fast-check";
import { extract } from "tar-stream";
import { AppError } from "../../../src/contract/errors.ts";
import type { GuestConfig } from "../../../src/contract/machine.ts";
import { makeSshKey } from "../../../src/guest/keys.ts";
import type { SshKey } from "../../../src/guest/openssh-key.ts";
import { makeSeed, SEED_BYTES, type SeedContent } from "../../../src/guest/seed.ts";

interface SeenEntry {
  readonly mode: number | undefined;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  readonly user: string | undefined;
  readonly type: string | null | undefined;
  readonly text: string;
}

async function readTar(bytes: Uint8Array): Promise<Map<string, SeenEntry>> {
  const entries = new Map<string, SeenEntry>();
  const reader = extract();
  reader.end(Buffer.from(bytes));
  for await (const entry of reader) {
    const { name, mode, uid, gid, uname, type } = entry.header;
    assert.ok(!entries.has(name), `${name} is there twice`);
    let text = "";
    entry.setEncoding("utf8");
    for await (const chunk of entry) text += String(chunk);
    entries.set(name, { mode, uid, gid, user: uname, type, text });
  }
  return entries;
}

let host_key: SshKey;
let daemon: SshKey;

before(async () => {
  [host_key, daemon] = await Promise.all([makeSshKey("web"), makeSshKey("computer-host")]);
});

function content(change: Partial<SeedContent> = {}): SeedContent {
  return {
    hostname: "web",
    guest_machine_id: "0123456789abcdef0123456789abcdef",
    host_key,
    default_user: "root",
    daemon_public_key: daemon.public_key,
    resolvers: ["192.0.2.53"],
    guest_config: {},
    ...change,
  };
}

/** The contract refuses a line with any of these. */
function hasControls(text: string): boolean {
  return Array.from(text).some((character) => character < " " || character === "\u007f");
}

const line = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 200 })
  .filter((text) => !hasControls(text) && text.trim() !== "");
const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/);
const hostname = fc.array(label, { minLength: 1, maxLength: 2 }).map((labels) => labels.join("."));
const guestConfig: fc.Arbitrary<GuestConfig> = fc.record(
  {
    hostname,
    authorized_keys: fc.array(line, { maxLength: 8 }),
    trusted_user_ca_keys: fc.array(line, { maxLength: 4 }),
    login_webhook: fc.record(
      { url: fc.webUrl(), bearer_token: fc.stringMatching(/^[!-~]{1,40}$/) },
      { requiredKeys: ["url"], noNullPrototype: true },
    ),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const seedContent = fc
  .record({
    hostname,
    default_user: fc.constantFrom("root", "debian", "ubuntu"),
    resolvers: fc.array(fc.ipV4(), { maxLength: 3 }),
    guest_config: guestConfig,
  })
  .map((part) => content(part));

describe("any seed", () => {
  it("has the constant size, the digest of all its bytes, and is the same for the same content", async () => {
    await fc.assert(
      fc.asyncProperty(seedContent, async (given) => {
        const [one, other] = await Promise.all([makeSeed(given), makeSeed(structuredClone(given))]);
        assert.equal(one.bytes.length, SEED_BYTES);
        assert.ok(one.bytes.equals(other.bytes));
        assert.equal(one.sha256, createHash("sha256").update(one.bytes).digest("hex"));
      }),
      { numRuns: 60 },
    );
  });

  it("reads back with what was put in", async () => {
    await fc.assert(
      fc.asyncProperty(seedContent, async (given) => {
        const entries = await readTar((await makeSeed(given)).bytes);
        const text = (name: string): string => entries.get(name)?.text ?? assert.fail(`${name} is missing`);
        assert.equal(text("etc/hostname"), `${given.hostname}\n`);
        assert.equal(text("etc/machine-id"), `${given.guest_machine_id}\n`);
        assert.deepEqual(JSON.parse(text("etc/computer-host/guest-config.json")), given.guest_config);
        const keyFile = given.default_user === "root" ? "root" : `home/${given.default_user}`;
        const keys = text(`${keyFile}/.ssh/authorized_keys`).split("\n");
        for (const key of given.guest_config.authorized_keys ?? []) assert.ok(keys.includes(key.trim()));
        assert.ok(text("root/.ssh/authorized_keys").split("\n").includes(given.daemon_public_key));
        const cas = text("etc/ssh/computer_host_user_ca.pub").split("\n");
        for (const ca of given.guest_config.trusted_user_ca_keys ?? []) assert.ok(cas.includes(ca.trim()));
      }),
      { numRuns: 60 },
    );
  });

  it("holds no path that leaves the root or that a shell would split, and nothing that others may write", async () => {
    await fc.assert(
      fc.asyncProperty(seedContent, async (given) => {
        for (const [name, entry] of await readTar((await makeSeed(given)).bytes)) {
          assert.match(name, /^(?:etc|root|home)\/[a-z0-9._/-]+$/);
          assert.ok(!name.split("/").includes(".."));
          assert.equal((entry.mode ?? 0) & 0o022, 0, `${name} can be written by others`);
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe("a seed", () => {
  it("hides private keys and tokens from everyone but root", async () => {
    const entries = await readTar((await makeSeed(content())).bytes);
    for (const [name, mode] of [
      ["etc/ssh/ssh_host_ed25519_key", 0o600],
      ["etc/computer-host/guest-config.json", 0o600],
      ["etc/computer-host/login-webhook", 0o600],
      ["root/.ssh/", 0o700],
      ["root/.ssh/authorized_keys", 0o600],
    ] as const) {
      assert.equal(entries.get(name)?.mode, mode, name);
      assert.equal(entries.get(name)?.uid, 0, name);
    }
  });

  it("lets the user's keys in as the default user only, and the daemon as root always", async () => {
    const key = "ssh-ed25519 AAAAC3Nza user@there";
    const seed = await makeSeed(
      content({ default_user: "debian", guest_config: { authorized_keys: [key] } }),
    );
    const entries = await readTar(seed.bytes);
    assert.equal(entries.get("root/.ssh/authorized_keys")?.text, `${daemon.public_key}\n`);
    const { text, ...header } = entries.get("home/debian/.ssh/authorized_keys") ?? assert.fail();
    assert.equal(text, `${key}\n`);
    assert.deepEqual(header, { mode: 0o600, uid: 1000, gid: 1000, user: "debian", type: "file" });
  });

  it("takes away the keys, CAs and webhook of whoever had the disk before", async () => {
    const entries = await readTar((await makeSeed(content({ default_user: "debian" }))).bytes);
    assert.equal(entries.get("home/debian/.ssh/authorized_keys")?.text, "");
    assert.equal(entries.get("etc/ssh/computer_host_user_ca.pub")?.text, "");
    assert.equal(entries.get("etc/computer-host/login-webhook")?.text, "");
    const sshd = entries.get("etc/ssh/sshd_config.d/10-computer-host.conf")?.text ?? "";
    assert.doesNotMatch(sshd, /TrustedUserCAKeys/);
  });

  it("trusts the CAs of the request and that of the daemon", async () => {
    const seed = await makeSeed(
      content({
        login_ca_public_key: "ssh-ed25519 BBBB ops",
        guest_config: { trusted_user_ca_keys: ["ssh-ed25519 AAAA mine"] },
      }),
    );
    const entries = await readTar(seed.bytes);
    assert.equal(
      entries.get("etc/ssh/computer_host_user_ca.pub")?.text,
      "ssh-ed25519 AAAA mine\nssh-ed25519 BBBB ops\n",
    );
    const sshd = entries.get("etc/ssh/sshd_config.d/10-computer-host.conf")?.text ?? "";
    assert.match(sshd, /^TrustedUserCAKeys \/etc\/ssh\/computer_host_user_ca\.pub$/m);
  });

  it("names the webhook's URL on the first line and its token on the second", async () => {
    const seed = await makeSeed(
      content({ guest_config: { login_webhook: { url: "https://hook.example/x", bearer_token: "secret" } } }),
    );
    const entries = await readTar(seed.bytes);
    assert.equal(entries.get("etc/computer-host/login-webhook")?.text, "https://hook.example/x\nsecret\n");
  });

  it("that would not fit is refused by the name of the field", async () => {
    const authorized_keys = Array.from({ length: 64 }, (_, index) => `${index}${"k".repeat(16_000)}`);
    await assert.rejects(makeSeed(content({ guest_config: { authorized_keys } })), (error) => {
      assert.ok(error instanceof AppError);
      assert.equal(error.code, "bad_request");
      assert.equal(error.details?.["field"], "guest_config");
      return true;
    });
  });

  it("for a default user whose name is a path is refused", async () => {
    await assert.rejects(makeSeed(content({ default_user: "../etc" })), { code: "image_invalid" });
  });
});

for (const [name, argv] of [
  ["GNU tar", ["tar"]],
  ["busybox tar", ["busybox", "tar"]],
] as const) {
  const missing = !existsSync(`/usr/bin/${argv[0]}`) && !existsSync(`/bin/${argv[0]}`);
  describe(`a seed unpacked by ${name}`, { skip: missing ? `${argv[0]} is not installed` : false }, () => {
    it("is the same tree, with the modes that were written", async () => {
      const seed = await makeSeed(
        content({ default_user: "debian", guest_config: { authorized_keys: ["k"] } }),
      );
      const folder = mkdtempSync(join(tmpdir(), "seed-"));
      try {
        const [program, ...args] = argv;
        const archive = join(folder, "seed.tar");
        const tree = mkdirSync(join(folder, "tree"), { recursive: true }) ?? assert.fail();
        writeFileSync(archive, seed.bytes);
        execFileSync(program, [...args, "-x", "-p", "-f", archive, "-C", tree]);
        const unpacked = readdirSync(tree, { recursive: true, withFileTypes: true }).filter((item) =>
          item.isFile(),
        );
        const entries = await readTar(seed.bytes);
        const files = [...entries].filter(([, entry]) => entry.type === "file");
        assert.equal(unpacked.length, files.length);
        for (const [path, entry] of entries) {
          assert.equal(statSync(join(tree, path)).mode & 0o7777, entry.mode, path);
          if (entry.type === "file") assert.equal(readFileSync(join(tree, path), "utf8"), entry.text);
        }
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
  });
}
