import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { ServerChannel } from "ssh2";
import { AppError } from "../../../src/contract/errors.ts";
import { RECEIPT_ITEMS, type ReceiptEntry } from "../../../src/contract/machine.ts";
import { createGuests } from "../../../src/guest/guests.ts";
import { makeSshKey } from "../../../src/guest/keys.ts";
import type { SshKey } from "../../../src/guest/openssh-key.ts";
import { SEED_BYTES } from "../../../src/guest/seed.ts";
import { seedFiles } from "../../../src/guest/seed-files.ts";
import type { GuestAddress, GuestIdentity, Guests } from "../../../src/guest/types.ts";
import { silentLog } from "../../../src/system/log.ts";
import { leakCheck } from "./support/leaks.ts";
import { freePort, type SshGuestOptions, startSshGuest } from "./support/ssh-guest.ts";

let rootDir: string;
let hostKey: SshKey;
let loginKey: SshKey;
let identity: GuestIdentity;

before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "guest-unique-"));
  [hostKey, loginKey] = await Promise.all([makeSshKey("frozen"), makeSshKey("login")]);
  const request = { hostname: "woken", default_user: "root", guest_config: {}, resolvers: ["192.0.2.53"] };
  identity = await (await room(await freePort())).makeIdentity(request);
  // The first connection of a process loads the SSH library's own parts.
  await becomeIn(says([])).catch(() => {});
});

after(() => rm(rootDir, { recursive: true }));

async function room(port: number): Promise<Guests> {
  const guests = createGuests({ rootDir, log: silentLog, port });
  await guests.open();
  return guests;
}

function frozen(change: Partial<GuestAddress> = {}): GuestAddress {
  return {
    host: "127.0.0.1",
    ssh_host_public_key: hostKey.public_key,
    login_key: loginKey.private_key,
    ...change,
  };
}

/** Makes a guest of `options` unique and returns the receipt. Nothing may be left open, whatever comes of it. */
async function becomeIn(
  options: SshGuestOptions,
  signal: AbortSignal = AbortSignal.timeout(5000),
): Promise<readonly ReceiptEntry[]> {
  await using guest = await startSshGuest({
    host_key: hostKey,
    authorized_key: loginKey.public_key,
    ...options,
  });
  const guests = await room(guest.port);
  await using _leaks = leakCheck();
  const seed = { bytes: identity.seed, sha256: identity.seed_sha256, hostname: "woken" };
  return await guests.makeUnique(frozen(), seed, signal);
}

/** Expects `guest_not_ready` and returns its words. */
async function refusedIn(options: SshGuestOptions, signal?: AbortSignal): Promise<string> {
  try {
    await becomeIn(options, signal);
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, "guest_not_ready");
    return error.message;
  }
  return assert.fail("it was made unique");
}

/** A guest that asks for its input, and then says these lines. */
function says(lines: readonly string[], onInput: (input: Buffer) => void = () => {}): SshGuestOptions {
  return {
    onCommand: (channel: ServerChannel) => {
      const pieces: Buffer[] = [];
      channel.on("data", (piece: Buffer) => pieces.push(piece));
      channel.on("end", () => {
        onInput(Buffer.concat(pieces));
        for (const line of lines) channel.write(`${line}\n`);
        channel.exit(0);
        channel.end();
      });
      channel.write("Welcome, and what else a profile prints\ncomputer-host: clock?\n");
    },
  };
}

const line = (item: string, words: string, state = "done"): string =>
  `computer-host: ${item} ${state}: ${words}`;

/** What a guest says with which all is well, with changes. */
function well(change: Partial<Record<ReceiptEntry["item"], string | undefined>> = {}): string[] {
  const now = Date.now();
  const lines = RECEIPT_ITEMS.map((item) =>
    item in change ? change[item] : line(item, item === "clock" ? `${now - 5000} ${now}` : "as it should be"),
  );
  return [...lines.filter((text) => text !== undefined), "computer-host: end"];
}

const entryOf = (receipt: readonly ReceiptEntry[], item: ReceiptEntry["item"]): ReceiptEntry =>
  receipt.find((entry) => entry.item === item) ?? assert.fail(`no entry for ${item}`);

describe("a woken guest", () => {
  it("is given the time, the new seed and random bytes of its own, and its receipt is told in order", async () => {
    const inputs: Buffer[] = [];
    const guest = () =>
      says(well().toReversed().slice(1).concat("computer-host: end"), (got) => inputs.push(got));
    const receipt = await becomeIn(guest());
    await becomeIn(guest());
    assert.deepEqual(
      receipt.map(({ item, done }) => ({ item, done })),
      RECEIPT_ITEMS.map((item) => ({ item, done: true })),
    );
    const heads = inputs.map((input) => input.subarray(0, input.indexOf(10)).toString().split(" "));
    const [[now, sha256, hostname, machineId, random = "", bytes] = [], [, , , , otherRandom] = []] = heads;
    assert.ok(Math.abs(Number(now) - Date.now()) < 10_000);
    assert.deepEqual(
      [sha256, hostname, machineId],
      [identity.seed_sha256, "woken", identity.guest_machine_id],
    );
    assert.match(random, /^[0-9a-f]{128}$/);
    assert.notEqual(random, otherRandom);
    const tar = inputs[0]?.subarray(inputs[0].indexOf(10) + 1) ?? assert.fail();
    assert.equal(tar.length, Number(bytes));
    const padded = Buffer.alloc(SEED_BYTES);
    tar.copy(padded);
    assert.deepEqual(await seedFiles(padded), await seedFiles(identity.seed));
  });

  it("has no secret in the command line that its process list shows, which is the same for each", async () => {
    const commands = new Set<string>();
    for (let round = 0; round < 2; round += 1) {
      const { onCommand } = says(well());
      await becomeIn({
        onCommand: (channel, connection, command) => {
          commands.add(command);
          onCommand?.(channel, connection, command);
        },
      });
    }
    assert.equal(commands.size, 1);
    assert.match([...commands].join(), /^exec \/bin\/sh -c '/);
  });

  it("has its clock's step told, and a clock that is still wrong is not called done", async () => {
    const clock = async (words: string): Promise<ReceiptEntry> =>
      entryOf(await becomeIn(says(well({ clock: line("clock", words) }))), "clock");
    const now = Date.now();
    const behind = await clock(`${now - 3_600_000} ${now}`);
    assert.match(behind.how, /^stepped by \+36\d\d\.\d{3} s, then at most \d+ ms from the host's time$/);
    assert.match((await clock(`${now + 60_000} ${now}`)).how, /^stepped by -(59|60)\.\d{3} s/);
    assert.match((await clock(`${now} ${now - 60_000}`)).how, /^set, but still 6\d(\.\d+)? s from/);
    assert.equal((await clock(`${now} ${now - 60_000}`)).done, false);
    assert.equal((await clock("yesterday")).done, false);
  });

  it("that cannot do what is no identity is told so, with its own words", async () => {
    const receipt = await becomeIn(
      says(
        well({
          randomness: line("randomness", "neither perl nor python3", "failed"),
          connections: undefined,
        }),
      ),
    );
    assert.deepEqual(entryOf(receipt, "randomness"), {
      item: "randomness",
      done: false,
      how: "neither perl nor python3",
    });
    assert.deepEqual(entryOf(receipt, "connections"), {
      item: "connections",
      done: false,
      how: "the guest said nothing of it",
    });
  });

  for (const item of ["hostname", "machine_id", "ssh_host_key", "authorized_keys"] as const) {
    it(`without its own ${item} is not taken`, async () => {
      const change = { [item]: line(item, "read-only file system", "failed") };
      assert.match(await refusedIn(says(well(change))), new RegExp(`${item}: read-only file system`));
      assert.match(await refusedIn(says(well({ [item]: undefined }))), new RegExp(`${item}: the guest said`));
    });
  }

  it("shows clients no more than short printable text, and only what is an item, once", async () => {
    const receipt = await becomeIn(
      says([
        line("hostname", `\u001b[31m${"x".repeat(500)}`),
        line("hostname", "a second time", "failed"),
        line("resolvers", "y".repeat(5000)),
        line("password", "hunter2"),
        line("constructor", "no item"),
        ...well(),
      ]),
    );
    const { how } = entryOf(receipt, "hostname");
    assert.match(how, /^\?\[31mx+$/);
    assert.equal(how.length, 200);
    assert.equal(entryOf(receipt, "resolvers").how, "as it should be");
    assert.equal(receipt.length, RECEIPT_ITEMS.length);
  });

  it("that stops halfway, drops the connection or takes no command is not taken", async () => {
    assert.match(await refusedIn(says(well().slice(0, -1))), /stopped halfway \(exit code 0\)/);
    assert.match(
      await refusedIn({ onCommand: (_channel, connection) => connection.end() }),
      /stopped halfway \(disconnected\)/,
    );
    assert.match(await refusedIn({ refuseCommands: true }), /did not take the command/);
  });

  it("that says no end is cut off at its limit", async () => {
    const flood: SshGuestOptions = {
      onCommand: (channel) => {
        const more = (): void => {
          while (!channel.destroyed && channel.write("x".repeat(32_768)));
        };
        channel.on("drain", more);
        more();
      },
    };
    assert.match(await refusedIn(flood), /stopped halfway/);
  });

  it("that never answers is waited for as long as the caller says, and no longer", async () => {
    const started = performance.now();
    assert.match(await refusedIn({ onCommand: () => {} }, AbortSignal.timeout(300)), /in time/);
    assert.match(await refusedIn({ delayMs: 700 }, AbortSignal.timeout(300)), /in time/);
    assert.ok(performance.now() - started < 3000);
    const cancelled = new AppError("operation_cancelled", "A delete ended it.");
    const abort = new AbortController();
    const waiting = becomeIn({ onCommand: () => abort.abort(cancelled) }, abort.signal);
    await assert.rejects(waiting, cancelled);
  });

  it("with another host key, or that does not let the key in, is given up at once", async () => {
    const started = performance.now();
    assert.match(await refusedIn({ host_key: await makeSshKey("other") }), /has another host key/);
    assert.match(await refusedIn({ authorized_key: hostKey.public_key }), /does not let the daemon log in/);
    assert.ok(performance.now() - started < 2000);
  });

  it("is waited for while it does not listen yet", async () => {
    const port = await freePort();
    const guests = await room(port);
    const seed = { bytes: identity.seed, sha256: identity.seed_sha256, hostname: "woken" };
    const waiting = guests.makeUnique(frozen(), seed, AbortSignal.timeout(5000));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await using _guest = await startSshGuest({
      host_key: hostKey,
      authorized_key: loginKey.public_key,
      port,
      ...says(well()),
    });
    assert.equal((await waiting).length, RECEIPT_ITEMS.length);
  });

  it("whose snapshot carries no usable keys is refused before anything is sent", async () => {
    const guests = await room(await freePort());
    const seed = { bytes: identity.seed, sha256: identity.seed_sha256, hostname: "woken" };
    for (const change of [{ login_key: "a key" }, { ssh_host_public_key: "ssh-rsa AAAA" }]) {
      await assert.rejects(guests.makeUnique(frozen(change), seed, AbortSignal.timeout(1000)), {
        code: "snapshot_invalid",
      });
    }
  });
});
