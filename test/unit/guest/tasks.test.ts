import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createGuests } from "../../../src/guest/guests.ts";
import { loadOrMakeDaemonKey, makeSshKey } from "../../../src/guest/keys.ts";
import type { SshKey } from "../../../src/guest/openssh-key.ts";
import { silentLog } from "../../../src/system/log.ts";
import { leakCheck } from "./support/leaks.ts";
import { freePort, type SshGuestOptions, startSshGuest, startTcpServer } from "./support/ssh-guest.ts";

type Task = "sync" | "shutdown";

let rootDir: string;
let daemon: SshKey;
let guestKey: SshKey;

before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "guest-tasks-"));
  daemon = await loadOrMakeDaemonKey(rootDir);
  guestKey = await makeSshKey("guest");
  await task("sync", await freePort(), 100);
});

after(() => rm(rootDir, { recursive: true }));

async function task(name: Task, port: number, timeoutMs: number): Promise<boolean> {
  const guests = createGuests({ rootDir, log: silentLog, port });
  await guests.open();
  await using _leaks = leakCheck();
  return await guests[name]({ host: "127.0.0.1", ssh_host_public_key: guestKey.public_key }, timeoutMs);
}

/** Runs the task in a guest that does `options`, and returns its answer and the commands that the guest saw. */
async function taskIn(
  name: Task,
  options: SshGuestOptions,
  timeoutMs = 2000,
): Promise<{ answer: boolean; commands: readonly string[] }> {
  await using guest = await startSshGuest({
    host_key: guestKey,
    authorized_key: daemon.public_key,
    ...options,
  });
  return { answer: await task(name, guest.port, timeoutMs), commands: guest.commands };
}

const exits = (code: number): SshGuestOptions => ({
  onCommand: (channel) => {
    channel.exit(code);
    channel.end();
  },
});
const dropsTheConnection: SshGuestOptions = { onCommand: (_channel, connection) => connection.end() };
const neverEnds: SshGuestOptions = { onCommand: () => {} };

describe("syncing a guest's disks", () => {
  it("is done when the guest's sync ended well", async () => {
    assert.deepEqual(await taskIn("sync", exits(0)), { answer: true, commands: ["sync"] });
  });

  it("is not done when sync failed, was cut off or was not allowed", async () => {
    assert.equal((await taskIn("sync", exits(1))).answer, false);
    assert.equal((await taskIn("sync", dropsTheConnection)).answer, false);
    assert.equal((await taskIn("sync", { refuseCommands: true })).answer, false);
  });

  it("is given up after its time", async () => {
    const started = performance.now();
    assert.equal((await taskIn("sync", neverEnds, 300)).answer, false);
    assert.ok(performance.now() - started < 1500);
  });

  it("reads on while the guest floods it with output, but not for ever", async () => {
    const { answer } = await taskIn("sync", {
      onCommand: (channel) => {
        const flood = (): void => {
          while (!channel.destroyed && channel.write("x".repeat(32_768)));
        };
        channel.on("drain", flood);
        flood();
      },
    });
    assert.equal(answer, false);
  });

  it("never runs in a guest with another host key", async () => {
    const { answer, commands } = await taskIn("sync", { host_key: await makeSshKey("other") });
    assert.equal(answer, false);
    assert.deepEqual(commands, []);
  });

  it("is not done where nothing or nobody answers", async () => {
    assert.equal(await task("sync", await freePort(), 300), false);
    await using silent = await startTcpServer(() => {});
    assert.equal(await task("sync", silent.port, 300), false);
  });
});

describe("asking a guest to shut down", () => {
  it("runs reboot, which both inits take as a clean shutdown that ends in a reset", async () => {
    const { answer, commands } = await taskIn("shutdown", exits(0));
    assert.equal(answer, true);
    assert.match(commands.join(), /\breboot\b/);
  });

  it("has succeeded when the connection drops after the guest took the request", async () => {
    assert.equal((await taskIn("shutdown", dropsTheConnection)).answer, true);
  });

  it("has succeeded when the guest took the request and then says nothing more", async () => {
    assert.equal((await taskIn("shutdown", neverEnds, 300)).answer, true);
  });

  it("has failed in a guest without reboot, or that takes no commands", async () => {
    assert.equal((await taskIn("shutdown", exits(127))).answer, false);
    assert.equal((await taskIn("shutdown", { refuseCommands: true })).answer, false);
  });

  it("has failed where nobody answers", async () => {
    assert.equal(await task("shutdown", await freePort(), 300), false);
  });
});
