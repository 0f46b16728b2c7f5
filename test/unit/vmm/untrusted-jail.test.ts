import assert from "node:assert/strict";
import { once } from "node:events";
import { chown, link, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { Jail } from "../../../src/vmm/jail.ts";
import { readLogTail } from "../../../src/vmm/log-tail.ts";
import { readPidFile, recognise } from "../../../src/vmm/recognition.ts";
import { ApiSocket } from "../../../src/vmm/socket.ts";

const uid = process.getuid?.() ?? -1;
const skip = uid === 0 ? false : "needs root: files of several users";

/** A jail as a folder, and nothing in it. */
async function emptyJail() {
  const base = await mkdtemp(join(tmpdir(), "jail-"));
  const directory = join(base, "vmm", "id");
  const jail: Jail = { id: "id", directory, root: join(directory, "root") };
  await mkdir(join(jail.root, "run"), { recursive: true });
  const inside = (path: string): string => join(jail.root, path);
  const listen = async (path: string): Promise<AsyncDisposable> => {
    const server = createServer((connection) => connection.on("error", () => {}).end("hello")).listen(path);
    await once(server, "listening");
    return { [Symbol.asyncDispose]: async () => void (await new Promise((done) => server.close(done))) };
  };
  return {
    base,
    jail,
    inside,
    listen,
    [Symbol.asyncDispose]: async () => await rm(base, { recursive: true }),
  };
}

describe("the API socket", { skip }, () => {
  test("is reached although its path is longer than a socket's may be", async () => {
    await using host = await emptyJail();
    const deep = join(host.base, "x".repeat(200));
    await mkdir(join(deep, "run"), { recursive: true });
    await symlink(deep, join(host.base, "short"));
    await using _server = await host.listen(join(host.base, "short", "run", "api.sock"));
    using socket = ApiSocket.open(deep, uid);
    const connection = await socket.dial();
    const [said] = (await once(connection, "data")) as [Buffer];
    assert.equal(said.toString(), "hello");
    connection.destroy();
  });

  test("is not there yet: ENOENT", async () => {
    await using host = await emptyJail();
    assert.throws(() => ApiSocket.open(host.jail.root, uid), { code: "ENOENT" });
  });

  test("is refused when it, or its folder, is a link", async () => {
    await using host = await emptyJail();
    await using _server = await host.listen(join(host.base, "other.sock"));
    await symlink(join(host.base, "other.sock"), host.inside("run/api.sock"));
    assert.throws(() => ApiSocket.open(host.jail.root, uid), /not a socket/);
    await rm(host.inside("run"), { recursive: true });
    await symlink(host.base, host.inside("run"));
    assert.throws(() => ApiSocket.open(host.jail.root, uid), { code: "ENOTDIR" });
  });

  test("is refused when it is a file or belongs to somebody else", async () => {
    await using host = await emptyJail();
    await writeFile(host.inside("run/api.sock"), "");
    assert.throws(() => ApiSocket.open(host.jail.root, uid), /not a socket/);
    await rm(host.inside("run/api.sock"));
    await using _server = await host.listen(host.inside("run/api.sock"));
    assert.throws(() => ApiSocket.open(host.jail.root, 4711), /not a socket of uid 4711/);
  });

  test("stays the same one when another is put in its place", async () => {
    await using host = await emptyJail();
    await using _server = await host.listen(host.inside("run/api.sock"));
    using socket = ApiSocket.open(host.jail.root, uid);
    await rm(host.inside("run/api.sock"));
    await writeFile(host.inside("run/api.sock"), "");
    (await socket.dial()).destroy();
  });
});

describe("the pid file", { skip }, () => {
  test("is read as the jailer writes it, and waited for while it is missing or empty", async () => {
    await using host = await emptyJail();
    assert.equal(readPidFile(host.jail), undefined);
    await writeFile(host.inside("vmm.pid"), "");
    assert.equal(readPidFile(host.jail), undefined);
    await writeFile(host.inside("vmm.pid"), "1234");
    assert.equal(readPidFile(host.jail), 1234);
  });

  test("is refused when it is a link, has a second name, another owner, or holds no pid", async () => {
    await using host = await emptyJail();
    const file = host.inside("vmm.pid");
    await symlink("/proc/1/stat", file);
    assert.throws(() => readPidFile(host.jail), { code: "ELOOP" });
    await rm(file);
    await writeFile(host.inside("other"), "1234");
    await link(host.inside("other"), file);
    assert.throws(() => readPidFile(host.jail), /not the jailer's/);
    await rm(host.inside("other"));
    await chown(file, 4711, 4711);
    assert.throws(() => readPidFile(host.jail), /not the jailer's/);
    await rm(file);
    for (const content of ["-1", "0", "12 34", "99999999999", "root"]) {
      await writeFile(file, content);
      assert.throws(() => readPidFile(host.jail), /holds no pid/);
    }
  });

  test("cannot name a process that does not live in the jail", async () => {
    await using host = await emptyJail();
    const expected = { uid, gid: uid, netns_path: "/proc/self/ns/net" };
    assert.deepEqual(recognise(process.pid, host.jail, expected), {
      misfit: `process ${process.pid} does not have the jail as its root folder`,
    });
    const everything: Jail = { ...host.jail, root: "/" };
    assert.ok(!("misfit" in recognise(process.pid, everything, expected)), "the check can succeed");
    const other = recognise(process.pid, everything, { ...expected, uid: 4711 });
    assert.match("misfit" in other ? other.misfit : "", /does not run as 4711/);
  });
});

describe("the tail of a log", { skip }, () => {
  test("is its last 4 KiB, without what could drive a terminal", async () => {
    await using host = await emptyJail();
    const path = join(host.base, "log");
    await writeFile(path, `${"x".repeat(10_000)}\nlast \u001b[31mline\u0007\n`);
    const tail = await readLogTail(path);
    assert.equal(tail.length, 4095);
    assert.match(tail, /\nlast \uFFFD\[31mline\uFFFD$/);
  });

  test("is empty for a link, a pipe's name, a folder or nothing", async () => {
    await using host = await emptyJail();
    await symlink("/etc/hostname", join(host.base, "link"));
    assert.equal(await readLogTail(join(host.base, "link")), "");
    assert.equal(await readLogTail(host.base), "");
    assert.equal(await readLogTail(join(host.base, "missing")), "");
  });
});
