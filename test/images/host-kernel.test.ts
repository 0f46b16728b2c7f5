import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { CONNECTIONS_SHELL } from "../../src/guest/unique/connections-shell.ts";
import { RANDOMNESS_SHELL } from "../../src/guest/unique/randomness-shell.ts";
import { run } from "../../src/system/run.ts";
import { serve } from "../network/support/listener.ts";
import { makePlayground, PLAYGROUND, type Place } from "../support/playground.ts";

/** Parts of what a woken guest runs that the kernel of our images has nothing for, on the kernel of this host. */
const TELL = `tell() { printf '%s %s: %s\\n' "$1" "$2" "$3"; }\n`;

const { host_address, public_address } = PLAYGROUND;

/** A connection from a place to itself over loopback, through which lines go there and back. */
async function loopback(place: Place): Promise<AsyncDisposable & { say(line: string): Promise<unknown> }> {
  const program = `
    const net = require("node:net");
    net.createServer((socket) => socket.pipe(socket)).listen(4000, "127.0.0.1", () => {
      const socket = net.connect(4000, "127.0.0.1", () => console.log("ready"));
      process.stdin.pipe(socket).pipe(process.stdout);
    });`;
  const [file, ...args] = place.command([process.execPath, "-e", program]);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  await once(lines, "line");
  return {
    say: async (line) => {
      const answer = once(lines, "line", { signal: AbortSignal.timeout(3000) });
      child.stdin.write(`${line}\n`);
      return (await answer)[0];
    },
    [Symbol.asyncDispose]: async () => {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

test("connections that lead out are reset, but not the daemon's own and not those within the machine", async () => {
  await using stack = new AsyncDisposableStack();
  const { host } = stack.use(await makePlayground());
  const past = [
    stack.use(await serve(host, "echo-client", public_address, 80)),
    stack.use(await serve(host, "echo-client", public_address, 443)),
  ];
  const own = stack.use(await serve(host, "echo-client", public_address, 25));
  const within = stack.use(await loopback(host));
  // They hear of their end at once: who listens only afterwards misses it.
  const ends = past.map((connection) => connection.say(""));
  const { stdout } = await host.run(["sh", "-c", `${TELL}${CONNECTIONS_SHELL}reset_connections`], {
    env: { SSH_CONNECTION: `${public_address} 25 ${host_address} 22` },
  });
  if (stdout.includes("could not")) {
    // A host kernel without INET_DIAG_DESTROY: then it must be said, and all goes on.
    assert.match(stdout, /^connections done: 2 could not be ended from inside/);
    for (const connection of past) assert.equal(await connection.say("still there"), "still there");
  } else {
    assert.equal(stdout, "connections done: 2 reset by ss\n");
    assert.deepEqual(await Promise.all(ends), ["ECONNABORTED", "ECONNABORTED"]);
  }
  assert.equal(await own.say("own"), "own");
  assert.equal(await within.say("within"), "within");
});

test("the host's random bytes are credited by perl, by python3 where there is no perl, and by nothing else", async (context) => {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "ch-random-"));
  stack.defer(() => rm(folder, { recursive: true }));
  const renew = async (path: string): Promise<string> => {
    const script = `random=${"5a".repeat(64)}\n${TELL}${RANDOMNESS_SHELL}renew_randomness`;
    return (await run(["/bin/sh", "-c", script], { env: { PATH: path } })).stdout;
  };
  const nothing = await renew(folder);
  assert.match(nothing, /^randomness (failed: .*neither perl nor python3|done: .*VMGenID.* reseeded)/);
  for (const name of ["python3", "perl"]) {
    const program = `/usr/bin/${name}`;
    if (!existsSync(program)) {
      context.diagnostic(`this host has no ${program}`);
      continue;
    }
    await symlink(program, join(folder, name));
    assert.match(
      await renew(folder),
      new RegExp(`^randomness done: bytes of the host credited .* by ${name}; VMGenID`),
    );
  }
});
