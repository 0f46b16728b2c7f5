import { createHash } from "node:crypto";
import { buffer } from "node:stream/consumers";
import { pack } from "tar-stream";
import { AppError } from "../contract/errors.ts";
import type { GuestConfig } from "../contract/machine.ts";
import type { SshKey } from "./openssh-key.ts";

/** Everything that a seed says about one guest. */
export interface SeedContent {
  readonly hostname: string;
  readonly guest_machine_id: string;
  readonly host_key: SshKey;
  /** The image's user that the request's authorized keys log in as. */
  readonly default_user: string;
  /** One line in OpenSSH's format: root lets the daemon in with it, and only this guest's does. */
  readonly daemon_public_key: string;
  /** A CA that every guest of this daemon trusts, beside those of the request. */
  readonly login_ca_public_key?: string;
  readonly resolvers: readonly string[];
  readonly guest_config: GuestConfig;
}

export interface Seed {
  /** The tar, padded with zeros to `SEED_BYTES`. */
  readonly bytes: Buffer;
  /** Of all of `bytes`, the padding too: 64 lower-case hex digits. */
  readonly sha256: string;
}

/** Every seed has this size, so that a memory snapshot can be loaded over another one. */
export const SEED_BYTES = 1024 * 1024;

/**
 * The daemon cannot read the guest's passwd, so a default user other than root has the uid and gid that every
 * distribution gives the first user. The name in the tar's header is the user's too: an unpacker that looks
 * names up finds the right number where it is another.
 */
const FIRST_USER_ID = 1000;

const USER_PATTERN = /^[a-z_][a-z0-9_-]{0,30}$/;
const HOST_KEY_PATH = "etc/ssh/ssh_host_ed25519_key";

/** Where a seed's public facts lie in it. */
export const SEED_PATHS = {
  hostname: "etc/hostname",
  machineId: "etc/machine-id",
  hostKey: `${HOST_KEY_PATH}.pub`,
  userCas: "etc/ssh/computer_host_user_ca.pub",
  resolvers: "etc/resolv.conf",
  daemonKey: "etc/computer-host/daemon-key.pub",
  /** Below the home of each user that has some. */
  authorizedKeys: ".ssh/authorized_keys",
} as const;

interface Entry {
  /** Relative to the guest's root; a folder's ends in a slash. */
  readonly name: string;
  readonly mode: number;
  readonly content?: string;
  readonly owner: { readonly name: string; readonly id: number };
}

/**
 * The seed of one guest: the same content gives the same bytes. The format is described in guest/README.md.
 * Throws `bad_request` when the content does not fit, `image_invalid` when the default user's name is none.
 */
export async function makeSeed(content: SeedContent): Promise<Seed> {
  const tar = await tarOf(entriesOf(content));
  if (tar.length > SEED_BYTES) {
    throw new AppError(
      "bad_request",
      `guest_config is too large: the guest's seed would take ${tar.length} bytes and has room for ${SEED_BYTES}. Give fewer or shorter keys.`,
      { details: { field: "guest_config", seed_bytes: tar.length, limit_bytes: SEED_BYTES } },
    );
  }
  const bytes = Buffer.alloc(SEED_BYTES);
  tar.copy(bytes);
  return { bytes, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/**
 * The files, in the order in which they are unpacked. All of them are always there, empty where there is
 * nothing to say: a restored disk brings its former identity along, and a file that is missing would keep it.
 * A folder is named where the image may lack it, with the mode that every distribution gives it.
 */
function entriesOf(content: SeedContent): Entry[] {
  const { guest_config, default_user } = content;
  const userCas = [...(guest_config.trusted_user_ca_keys ?? []), content.login_ca_public_key];
  const userCaLines = lines(userCas);
  const userKeys = guest_config.authorized_keys ?? [];
  const rootKeys = default_user === "root" ? userKeys : [];
  return [
    file(SEED_PATHS.hostname, `${content.hostname}\n`),
    file("etc/hosts", hostsFile(content.hostname)),
    file(SEED_PATHS.machineId, `${content.guest_machine_id}\n`, 0o444),
    file(SEED_PATHS.resolvers, resolvConf(content.resolvers)),
    folder("etc/ssh/", 0o755),
    file(HOST_KEY_PATH, content.host_key.private_key, 0o600),
    file(SEED_PATHS.hostKey, `${content.host_key.public_key}\n`),
    file(SEED_PATHS.userCas, userCaLines),
    folder("etc/ssh/sshd_config.d/", 0o755),
    file("etc/ssh/sshd_config.d/10-computer-host.conf", sshdConfig(userCaLines !== "")),
    folder("etc/computer-host/", 0o755),
    file("etc/computer-host/guest-config.json", `${JSON.stringify(guest_config, null, 2)}\n`, 0o600),
    file("etc/computer-host/login-webhook", webhookFile(guest_config), 0o600),
    // By it a login hook can tell the daemon's own logins from those of people.
    file(SEED_PATHS.daemonKey, `${content.daemon_public_key}\n`),
    folder("root/.ssh/", 0o700),
    file(`root/${SEED_PATHS.authorizedKeys}`, lines([...rootKeys, content.daemon_public_key]), 0o600),
    ...(default_user === "root" ? [] : userEntries(default_user, userKeys)),
  ];
}

function userEntries(user: string, keys: readonly string[]): Entry[] {
  if (!USER_PATTERN.test(user)) {
    throw new AppError("image_invalid", `The image's default user ${JSON.stringify(user)} is no user name.`);
  }
  const owner = { name: user, id: FIRST_USER_ID };
  return [
    { ...folder(`home/${user}/.ssh/`, 0o700), owner },
    { ...file(`home/${user}/${SEED_PATHS.authorizedKeys}`, lines(keys), 0o600), owner },
  ];
}

/** One folded line each, and none for what is missing or only a repetition. */
function lines(texts: readonly (string | undefined)[]): string {
  const kept = new Set(texts.map((text) => text?.trim() ?? "").filter((text) => text !== ""));
  return [...kept].map((text) => `${text}\n`).join("");
}

function hostsFile(hostname: string): string {
  const [short = hostname] = hostname.split(".");
  const names = short === hostname ? hostname : `${hostname} ${short}`;
  // 127.0.1.1 is Debian's place for the own name: localhost stays what 127.0.0.1 is called.
  return `127.0.0.1 localhost\n127.0.1.1 ${names}\n::1 localhost ip6-localhost ip6-loopback\n`;
}

function resolvConf(resolvers: readonly string[]): string {
  if (resolvers.length === 0) return "# the host has no resolver that this guest could reach\n";
  return resolvers.map((address) => `nameserver ${address}\n`).join("");
}

/** sshd takes the first value it finds, and the distributions include this folder at the top. */
function sshdConfig(hasUserCas: boolean): string {
  return [
    "# Written by computer-host with the machine's identity.",
    // Without it sshd offers every key that a first boot of the image may have made as well.
    `HostKey /${HOST_KEY_PATH}`,
    // The daemon checks readiness and syncs disks as root, with its own key.
    "PermitRootLogin prohibit-password",
    ...(hasUserCas ? [`TrustedUserCAKeys /${SEED_PATHS.userCas}`] : []),
    "",
  ].join("\n");
}

/** The URL on the first line, the bearer token or nothing on the second; empty without a webhook. */
function webhookFile({ login_webhook: webhook }: GuestConfig): string {
  return webhook === undefined ? "" : `${webhook.url}\n${webhook.bearer_token ?? ""}\n`;
}

const ROOT = { name: "root", id: 0 };

function file(name: string, content: string, mode = 0o644): Entry {
  return { name, mode, content, owner: ROOT };
}

function folder(name: string, mode: number): Entry {
  return { name, mode, owner: ROOT };
}

async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const archive = pack();
  for (const { name, mode, content, owner } of entries) {
    const header = {
      name,
      mode,
      uid: owner.id,
      gid: owner.id,
      uname: owner.name,
      gname: owner.name,
      // Not the time of packing: the same identity is the same file.
      mtime: new Date(0),
    };
    if (content === undefined) archive.entry({ ...header, type: "directory" });
    else archive.entry({ ...header, type: "file" }, content);
  }
  archive.finalize();
  return await buffer(archive);
}
