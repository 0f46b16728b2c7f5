import { generateKeyPair } from "node:crypto";
import { chmod, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { errnoOf, messageOf } from "../contract/errors.ts";
import { ensureDirectory, writeFileDurably } from "../system/files.ts";
import { decodeSshKey, encodeSshKey, type SshKey } from "./openssh-key.ts";

const generate = promisify(generateKeyPair);

/** A new key, made in this process: no `ssh-keygen` runs and no file is written. */
export async function makeSshKey(comment: string): Promise<SshKey> {
  const { privateKey } = await generate("ed25519");
  return encodeSshKey(privateKey, comment);
}

/**
 * The daemon's own key, kept at `<rootDir>/keys/ssh_ed25519` (0600) with its public half beside it.
 * Made on the first start; a file that is there but unreadable is an error and never overwritten, since the
 * guests of an earlier start know only its key.
 */
export async function loadOrMakeDaemonKey(rootDir: string): Promise<SshKey> {
  const path = join(rootDir, "keys", "ssh_ed25519");
  await ensureDirectory(join(rootDir, "keys"));
  let key = await readDaemonKey(path);
  if (key === undefined) {
    key = await makeSshKey("computer-host");
    await writeFileDurably(path, key.private_key, 0o600);
  } else {
    // A copy or a restored backup may have opened it to others.
    await chmod(path, 0o600);
  }
  const publicFile = `${key.public_key}\n`;
  const present = await readFile(`${path}.pub`, "utf8").catch(() => undefined);
  if (present !== publicFile) await writeFileDurably(`${path}.pub`, publicFile, 0o644);
  return key;
}

async function readDaemonKey(path: string): Promise<SshKey | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw new Error(`the daemon's key ${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
  try {
    return decodeSshKey(text);
  } catch (error) {
    throw new Error(
      `the daemon's key ${path} is damaged (${messageOf(error)}): restore it from a backup; or, if no machine or snapshot of this root is needed any more, remove it and start again`,
      { cause: error },
    );
  }
}
