import assert from "node:assert/strict";
import { lstatSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { Jail } from "./support/jail.ts";
import { pair } from "./support/pair.ts";
import { family } from "./support/processes.ts";
import { runVmm } from "./support/vmm.ts";

/** Linux's numbers: the low byte and the bits above 20 are the minor. */
function device(path: string): string {
  const { rdev } = statSync(path);
  return `${(rdev >> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >> 12) & 0xfff00)}`;
}

test("a jail lies at <base>/<exec name>/<id>/root and belongs to its uid and gid alone", async () => {
  await using jail = new Jail();
  await jail.start();
  assert.deepEqual(readdirSync(jail.base.path), [pair.execName]);
  assert.deepEqual(readdirSync(jail.execFolder), [jail.id]);
  assert.deepEqual(readdirSync(join(jail.execFolder, jail.id)), ["root"]);
  for (const path of ["", "/dev", "/dev/net", "/run"]) {
    const { uid, gid, mode } = lstatSync(jail.inside(path));
    assert.deepEqual([uid, gid, mode & 0o7777], [jail.uid, jail.gid, 0o700], `root${path}`);
  }
});

test("the executable is copied in, with its mode, for the uid", async () => {
  await using jail = new Jail();
  await jail.start();
  const copy = lstatSync(jail.inside(`/${pair.execName}`));
  const source = statSync(pair.firecracker);
  assert.deepEqual([copy.uid, copy.gid, copy.mode & 0o777], [jail.uid, jail.gid, source.mode & 0o777]);
  assert.equal(copy.size, source.size);
  assert.notEqual(copy.ino, source.ino);
});

test("the device nodes are the jail's own", async () => {
  await using jail = new Jail();
  await jail.start();
  for (const [path, numbers] of [
    ["/dev/net/tun", "10:200"],
    ["/dev/kvm", "10:232"],
    ["/dev/urandom", "1:9"],
  ] as const) {
    const node = lstatSync(jail.inside(path));
    assert.ok(node.isCharacterDevice(), path);
    assert.equal(device(jail.inside(path)), numbers, path);
    assert.deepEqual([node.uid, node.gid, node.mode & 0o777], [jail.uid, jail.gid, 0o600], path);
  }
});

test("the pid file is root's and holds the VMM's pid on the host and nothing else", async () => {
  await using jail = new Jail();
  await jail.start();
  const { uid, gid } = lstatSync(jail.pidFile);
  assert.deepEqual([uid, gid], [0, 0]);
  assert.match(readFileSync(jail.pidFile, "utf8"), /^[1-9]\d*$/);
  assert.ok(statSync(`/proc/${jail.pid}`).isDirectory());
});

test("the API's socket is the uid's and lies where the VMM was told", async () => {
  await using jail = new Jail();
  await jail.start();
  const { uid, gid } = lstatSync(jail.socket);
  assert.deepEqual([uid, gid], [jail.uid, jail.gid]);
  assert.ok(lstatSync(jail.socket).isSocket());
});

test("a jail may be made and filled beforehand", async () => {
  await using jail = new Jail();
  const staged = jail.stage("/etc/hostname", "disk");
  mkdirSync(jail.inside("/folder"));
  writeFileSync(jail.inside("/folder/file"), "kept");
  await jail.start();
  const body = { drive_id: "root", path_on_host: staged, is_root_device: true };
  assert.equal((await jail.call("PUT", "/drives/root", body)).status, 204);
  assert.equal(readFileSync(jail.inside("/folder/file"), "utf8"), "kept");
});

test("the VMM sees its jail as / and is told its id", async () => {
  await using jail = new Jail();
  await jail.start();
  assert.equal(expectBody(await jail.call("GET", "/"))["id"], jail.id);
  await jail.boot("idle");
  // Only the same folder has the same number on the same device.
  const made = statSync(jail.root);
  for (const pid of family(jail.pid)) {
    const seen = statSync(`/proc/${pid}/root`);
    assert.deepEqual([seen.ino, seen.dev], [made.ino, made.dev]);
  }
});

test("the host's paths mean nothing to the VMM", async () => {
  await using jail = new Jail();
  jail.stage("/etc/hostname", "kernel");
  await jail.start();
  expectFault(await jail.call("PUT", "/boot-source", { kernel_image_path: jail.inside("/kernel") }));
  expectDone(await jail.call("PUT", "/boot-source", { kernel_image_path: "/kernel" }));
});

test("what follows -- goes to the VMM", async () => {
  await using jail = new Jail();
  await jail.start({
    vmmArgs: ["--http-api-max-payload-size", "100", "--log-path", "/log", "--level", "Info"],
  });
  assert.equal((await jail.call("PUT", "/mmds", { a: "a".repeat(200) })).status, 400);
  const { uid } = lstatSync(jail.inside("/log"));
  assert.equal(uid, jail.uid);
});

test("a jail's mounts are not the host's", async () => {
  await using jail = new Jail();
  await jail.start();
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  assert.ok(!mounts.includes(jail.base.path));
});

test("--version of the jailer and of the VMM agree", async () => {
  await using jail = new Jail();
  const exit = await jail.run({ args: ["--version"] });
  assert.equal(exit.code, 0);
  const version = /^Jailer v(\S+)/.exec(jail.output)?.[1];
  assert.ok((await runVmm(["--version"])).output.startsWith(`Firecracker v${version}\n`), jail.output);
});
