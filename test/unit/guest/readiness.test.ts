import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { createGuests } from "../../../src/guest/guests.ts";
import { loadOrMakeDaemonKey, makeSshKey } from "../../../src/guest/keys.ts";
import type { SshKey } from "../../../src/guest/openssh-key.ts";
import type { Guests } from "../../../src/guest/types.ts";
import { silentLog } from "../../../src/system/log.ts";
import { leakCheck, until } from "./support/leaks.ts";
import { freePort, startSshGuest, startTcpServer } from "./support/ssh-guest.ts";

let rootDir: string;
let daemon: SshKey;
let guestKey: SshKey;

before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "guest-ready-"));
  daemon = await loadOrMakeDaemonKey(rootDir);
  guestKey = await makeSshKey("guest");
  // The first connection of a process loads the SSH library's own parts.
  await using guest = await startSshGuest({ authorized_key: daemon.public_key, host_key: guestKey });
  await (await room(guest.port)).waitReady(address(), AbortSignal.timeout(5000));
});

after(() => rm(rootDir, { recursive: true }));

async function room(port: number): Promise<Guests> {
  const guests = createGuests({ rootDir, log: silentLog, port });
  await guests.open();
  return guests;
}

function address(): { host: string; ssh_host_public_key: string } {
  return { host: "127.0.0.1", ssh_host_public_key: guestKey.public_key };
}

/** Waits on `port` for `ms`, then expects `guest_not_ready`, and returns its words and what was seen last. */
async function notReady(port: number, ms: number): Promise<{ message: string; seen: unknown }> {
  const guests = await room(port);
  await using _leaks = leakCheck();
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(new DOMException("too late", "TimeoutError")), ms);
  let thrown: unknown;
  try {
    await guests.waitReady(address(), limit.signal);
  } catch (error) {
    thrown = error;
  }
  clearTimeout(timer);
  assert.ok(thrown instanceof AppError, String(thrown));
  assert.equal(thrown.code, "guest_not_ready");
  assert.equal(getEventListeners(limit.signal, "abort").length, 0, "listeners are left on the signal");
  return { message: thrown.message, seen: thrown.details?.["last_seen"] };
}

describe("waiting for a guest", () => {
  it("ends when the right host key answers and lets the daemon in", async () => {
    await using guest = await startSshGuest({ authorized_key: daemon.public_key, host_key: guestKey });
    await using _leaks = leakCheck();
    const signal = new AbortController().signal;
    await (await room(guest.port)).waitReady(address(), signal);
    assert.equal(guest.connections, 1);
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  it("goes on while nothing listens, and ends soon after something does", async () => {
    await using _leaks = leakCheck();
    const port = await freePort();
    const waiting = (await room(port)).waitReady(address(), AbortSignal.timeout(5000));
    await new Promise((resolve) => setTimeout(resolve, 300));
    await using _guest = await startSshGuest({ authorized_key: daemon.public_key, host_key: guestKey, port });
    const started = performance.now();
    await waiting;
    assert.ok(performance.now() - started < 1000);
  });

  it("takes a guest that is slow in the handshake", async () => {
    await using guest = await startSshGuest({
      authorized_key: daemon.public_key,
      host_key: guestKey,
      delayMs: 700,
    });
    await using _leaks = leakCheck();
    await (await room(guest.port)).waitReady(address(), AbortSignal.timeout(5000));
    assert.equal(guest.connections, 1, "the slow attempt was given up");
  });

  it("never takes another host key, and says which it saw", async () => {
    const other = await makeSshKey("other");
    await using guest = await startSshGuest({ authorized_key: daemon.public_key, host_key: other });
    const { message, seen } = await notReady(guest.port, 400);
    assert.equal(seen, "other_host_key");
    assert.match(message, /another host key/);
    assert.ok(message.includes(other.public_key.split(" ")[1] ?? "?"));
    assert.ok(guest.connections > 1, "it did not keep trying");
  });

  it("is over once the other host key has given way to the right one", async () => {
    await using _leaks = leakCheck();
    const other = await makeSshKey("other");
    const wrong = await startSshGuest({ authorized_key: daemon.public_key, host_key: other });
    const waiting = (await room(wrong.port)).waitReady(address(), AbortSignal.timeout(5000));
    await until(() => wrong.connections > 0);
    await wrong[Symbol.asyncDispose]();
    await using _right = await startSshGuest({
      authorized_key: daemon.public_key,
      host_key: guestKey,
      port: wrong.port,
    });
    await waiting;
  });

  it("does not call a guest ready that keeps the daemon out", async () => {
    await using guest = await startSshGuest({ host_key: guestKey });
    assert.equal((await notReady(guest.port, 400)).seen, "login_refused");
  });

  it("leaves nothing behind when nothing ever listens", async () => {
    assert.equal((await notReady(await freePort(), 300)).seen, "unreachable");
  });

  it("leaves nothing behind when the guest accepts and stays silent", async () => {
    await using server = await startTcpServer(() => {});
    assert.equal((await notReady(server.port, 300)).seen, "nothing");
  });

  for (const [name, greet] of [
    ["at once", undefined],
    ["after its banner", "SSH-2.0-OpenSSH_9.2\r\n"],
    ["in mid-handshake", "SSH-2.0-OpenSSH_9.2\r\n\0\0\0\x20\x04"],
    ["after nonsense", "HTTP/1.1 400 Bad Request\r\n\r\n".repeat(50)],
  ] as const) {
    it(`goes on when the guest closes ${name}`, async () => {
      await using server = await startTcpServer((socket) => {
        if (greet === undefined) socket.end();
        else socket.end(greet, "latin1");
      });
      assert.equal((await notReady(server.port, 300)).seen, "closed");
    });
  }

  it("cuts off a guest that talks without end", async () => {
    let sent = 0;
    await using server = await startTcpServer((socket) => {
      const line = Buffer.from(`${"x".repeat(8000)}\r\n`);
      const talk = (): void => {
        while (!socket.destroyed && socket.write(line)) sent += line.length;
      };
      socket.on("drain", talk);
      talk();
    });
    const { seen } = await notReady(server.port, 500);
    assert.notEqual(seen, "login_refused");
    assert.ok(sent < 100 * 1024 * 1024);
  });

  it("that somebody ended on purpose rejects with their reason", async () => {
    await using _leaks = leakCheck();
    const port = await freePort();
    const cancel = new AbortController();
    const waiting = (await room(port)).waitReady(address(), cancel.signal);
    const reason = new AppError("operation_cancelled", "A delete ended the create.");
    setTimeout(() => cancel.abort(reason), 50);
    await assert.rejects(waiting, (error) => error === reason);
  });

  it("that was over before it began opens no connection", async () => {
    await using guest = await startSshGuest({ authorized_key: daemon.public_key, host_key: guestKey });
    const waiting = (await room(guest.port)).waitReady(address(), AbortSignal.abort(new Error("over")));
    await assert.rejects(waiting, { code: "guest_not_ready" });
    assert.equal(guest.connections, 0);
  });
});
