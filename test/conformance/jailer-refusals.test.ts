import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { expectBody } from "./support/api.ts";
import { removeGroup, v1Mount } from "./support/cgroups.ts";
import { Jail, type JailOptions } from "./support/jail.ts";

const DAEMON = ["--daemonize", "--new-pid-ns"];

function args(...more: string[]): JailOptions {
  return { args: [...DAEMON, ...more] };
}

function flags(change: Record<string, string | null>): JailOptions {
  return { args: DAEMON, flags: change };
}

describe("refused before anything is made", () => {
  const refused: [string, JailOptions][] = [
    ["an id with an underscore", flags({ id: "a_b" })],
    ["an id with a slash", flags({ id: "../a" })],
    ["an empty id", flags({ id: "" })],
    ["an id of 65 characters", flags({ id: "a".repeat(65) })],
    ["no id", flags({ id: null })],
    ["no executable", flags({ "exec-file": null })],
    ["an executable that is not there", flags({ "exec-file": "/nowhere/firecracker" })],
    ["an executable that is a folder", flags({ "exec-file": "/usr" })],
    ["no uid", flags({ uid: null })],
    ["no gid", flags({ gid: null })],
    ["a uid that is no number", flags({ uid: "root" })],
    ["a negative gid", flags({ gid: "-1" })],
    ["a uid over 32 bits", flags({ uid: "4294967296" })],
    ["a base that is not there", flags({ "chroot-base-dir": "/nowhere/jails" })],
    ["an unknown flag", args("--turbo")],
    ["a flag given twice", args("--daemonize")],
    ["a flag without its value", args("--netns")],
    ["a limit of nothing", args("--resource-limit", "fsize")],
    ["a limit of something unknown", args("--resource-limit", "memory=1")],
    ["a limit that is no number", args("--resource-limit", "no-file=many")],
    ["a negative limit", args("--resource-limit", "fsize=-1")],
    ["a cgroup without a value", args("--cgroup", "pids.max=")],
    ["a cgroup file without a value", args("--cgroup", "pids.max")],
    ["a cgroup file outside its folder", args("--cgroup", "../pids.max=7")],
    ["a cgroup file of no controller", args("--cgroup", "max=7")],
    ["a controller that is not mounted", args("--cgroup", "warp.max=7")],
    ["a cgroup version that is no number", args("--cgroup-version", "two")],
    ["a cgroup version that there is not", args("--cgroup-version", "3", "--cgroup", "pids.max=7")],
    ["a parent cgroup that climbs", args("--parent-cgroup", "../up")],
    ["a parent cgroup that is absolute", args("--parent-cgroup", "/top")],
  ];
  for (const [name, options] of refused) {
    test(name, async () => {
      await using jail = new Jail();
      const { code } = await jail.run(options);
      assert.equal(code, 1, jail.output);
      assert.notEqual(jail.output, "");
      assert.deepEqual(readdirSync(jail.base.path), []);
    });
  }
});

test("a network namespace that is not there is refused and nothing runs", async () => {
  await using jail = new Jail();
  assert.equal((await jail.run(args("--netns", "/run/netns/not-there"))).code, 1);
  assert.ok(!existsSync(jail.pidFile));
});

test("a file that is no network namespace is refused and nothing runs", async () => {
  await using jail = new Jail();
  writeFileSync(jail.base.file("plain"), "");
  assert.equal((await jail.run(args("--netns", jail.base.file("plain")))).code, 1);
  assert.ok(!existsSync(jail.pidFile));
});

test("a cgroup value that the kernel refuses is refused and nothing runs", async () => {
  await using jail = new Jail();
  const group = `fcconf-${jail.id}`;
  const exit = await jail.run(args("--parent-cgroup", group, "--cgroup", "pids.max=plenty"));
  const mount = v1Mount("pids");
  if (mount !== undefined) await removeGroup(`${mount}/${group}/${jail.id}`);
  assert.equal(exit.code, 1);
  assert.ok(!existsSync(jail.pidFile));
});

test("an id in use is refused and its VMM is none the worse", async () => {
  await using jail = new Jail();
  await jail.start();
  const pid = jail.pid;
  assert.equal((await jail.run({ args: DAEMON })).code, 1);
  assert.equal(jail.pid, pid);
  expectBody(await jail.call("GET", "/"));
});

test("an id stays in use after its VMM is dead, until its folder is gone", async () => {
  await using jail = new Jail();
  await jail.start();
  await jail.killVmm();
  assert.equal((await jail.run({ args: DAEMON })).code, 1);
});
