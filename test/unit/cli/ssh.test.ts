import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { makeSshKey } from "../../../src/guest/keys.ts";
import type { SshKey } from "../../../src/guest/openssh-key.ts";
import { machine } from "../client/support/samples.ts";
import { always, startSocketServer } from "../client/support/socket-server.ts";
import { startSshGuest } from "../guest/support/ssh-guest.ts";

const launcher = fileURLToPath(new URL("../../../computer", import.meta.url));
const realSsh = "/usr/bin/ssh";

let user: SshKey;
let guestKey: SshKey;

before(async () => {
  [user, guestKey] = await Promise.all([makeSshKey("user"), makeSshKey("guest")]);
});

interface Ran {
  readonly code: unknown;
  readonly out: string;
  readonly err: string;
  readonly commands: readonly string[];
  /** What is left in the folder for temporary files. */
  readonly left: readonly string[];
}

/**
 * Runs `computer ssh` as people do, with the system's ssh, into a guest in this process that has `shownKey`.
 * A wrapper gives ssh the guest's port and keeps the user's own settings out.
 */
async function computerSsh(
  argv: readonly string[],
  shownKey: SshKey,
  optionsAt: "before" | "after" = "before",
): Promise<Ran> {
  await using guest = await startSshGuest({
    host_key: shownKey,
    authorized_key: user.public_key,
    onCommand: (channel) => {
      channel.write("hello from the guest\n");
      channel.exit(7);
      channel.end();
    },
  });
  await using server = await startSocketServer(
    always(200, {
      machine: { ...machine, runtime_host: "127.0.0.1", guest_ssh_host_public_key: guestKey.public_key },
    }),
  );
  const temporary = join(server.folder, "tmp");
  await mkdir(temporary);
  const key = join(server.folder, "key");
  await writeFile(key, user.private_key, { mode: 0o600 });
  const wrapper = join(server.folder, "ssh");
  await writeFile(
    wrapper,
    `#!/bin/sh\nexec ${realSsh} -F none -p ${guest.port} -o IdentitiesOnly=yes -o BatchMode=yes "$@"\n`,
  );
  await chmod(wrapper, 0o755);
  const [name = "", ...words] = argv;
  const line = optionsAt === "before" ? ["-i", key, name, ...words] : [name, "-i", key, ...words];
  const child = spawn(launcher, ["ssh", ...line], {
    env: {
      PATH: `${server.folder}:/usr/bin:/bin`,
      TMPDIR: temporary,
      FIRECRACKER_HOST_ROOT_DIR: server.folder,
    },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
  });
  const [out, err, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  return { code, out, err, commands: guest.commands, left: await readdir(temporary) };
}

describe("computer ssh", { skip: existsSync(realSsh) ? false : "there is no ssh on this host" }, () => {
  it("runs the command in the guest, and ends with its output and exit code", async () => {
    const ran = await computerSsh(["web", "--", "echo", "a b", "|", "cat"], guestKey);
    assert.deepEqual(ran, {
      code: 7,
      out: "hello from the guest\n",
      err: "",
      commands: ["echo a b | cat"],
      left: [],
    });
  });

  it("takes its options behind the machine too, as ssh does", async () => {
    const ran = await computerSsh(["web", "ls", "-l"], guestKey, "after");
    assert.equal(ran.code, 7, ran.err);
    assert.deepEqual(ran.commands, ["ls -l"]);
  });

  it("takes options behind the command's first word as the command's own", async () => {
    assert.deepEqual((await computerSsh(["web", "ls", "-l", "--json"], guestKey)).commands, ["ls -l --json"]);
  });

  it("refuses a guest with another host key than the daemon gave it", async () => {
    const ran = await computerSsh(["web", "true"], await makeSshKey("other"));
    assert.equal(ran.code, 255);
    assert.match(ran.err, /Host key verification failed/);
    assert.deepEqual(ran.commands, []);
    assert.deepEqual(ran.left, []);
  });

  it("says so when the machine has no address", async () => {
    const { runtime_host: _address, ...stopped } = { ...machine, phase: "stopped" };
    await using server = await startSocketServer(always(200, { machine: stopped }));
    const child = spawn(launcher, ["--socket", server.socketPath, "ssh", "web"], { timeout: 20_000 });
    const [err, [code]] = await Promise.all([text(child.stderr), once(child, "close")]);
    assert.equal(code, 1);
    assert.match(err, /web cannot be reached: it is stopped/);
  });
});
