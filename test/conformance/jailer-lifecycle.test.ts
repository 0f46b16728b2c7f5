import assert from "node:assert/strict";
import { chmodSync, chownSync, existsSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { describe, test } from "node:test";
import { expectDone, expectFault } from "./support/api.ts";
import { Jail } from "./support/jail.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { family, isAlive, kill, processesOfUid, statusField } from "./support/processes.ts";
import { waitFor } from "./support/wait.ts";

const byNumber = (a: number, b: number) => a - b;

test("every process of a jail runs under its uid and gid, with no group and no capability", async () => {
  await using jail = new Jail();
  await jail.start();
  await jail.boot("count");
  const all = family(jail.pid);
  for (const pid of all) {
    assert.equal(statusField(pid, "Uid"), Array(4).fill(jail.uid).join("\t"));
    assert.equal(statusField(pid, "Gid"), Array(4).fill(jail.gid).join("\t"));
    assert.equal(statusField(pid, "Groups"), "");
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapAmb"]) {
      assert.equal(statusField(pid, set), "0000000000000000", set);
    }
  }
  assert.deepEqual(processesOfUid(jail.uid).toSorted(byNumber), all.toSorted(byNumber));
});

test("nothing of the caller's environment reaches the VMM", async () => {
  await using jail = new Jail();
  await jail.start();
  for (const pid of family(jail.pid)) {
    assert.ok(!readFileSync(`/proc/${pid}/environ`, "utf8").includes("CONFORMANCE_SECRET"));
  }
});

test("SIGKILL on the pid of the pid file ends a running guest and everything of it", async () => {
  await using jail = new Jail();
  await jail.start();
  const console = await jail.boot("count");
  await console.waitForTick(2);
  await jail.killVmm();
  assert.deepEqual(processesOfUid(jail.uid), []);
});

test("SIGKILL ends everything without a process namespace too", async () => {
  await using jail = new Jail();
  const exit = await jail.run({ args: ["--daemonize"] });
  assert.equal(exit.code, 0);
  await jail.waitForApi();
  await jail.boot("count");
  await jail.killVmm();
  assert.deepEqual(processesOfUid(jail.uid), []);
});

test("in its own process namespace the VMM is 1, and deaf to SIGTERM and SIGINT", async () => {
  await using jail = new Jail();
  await jail.start();
  const console = await jail.boot("count");
  const numbers = statusField(jail.pid, "NSpid").split("\t");
  assert.equal(numbers[0], String(jail.pid));
  assert.equal(numbers.at(-1), "1");
  assert.notEqual(readlinkSync(`/proc/${jail.pid}/ns/pid`), readlinkSync("/proc/self/ns/pid"));
  kill(jail.pid, "SIGTERM");
  kill(jail.pid, "SIGINT");
  await console.waitForTick(console.lastTick() + 5);
  assert.ok(isAlive(jail.pid));
});

test("a daemon holds on to nothing of its caller", async () => {
  await using jail = new Jail();
  // start() already proves that the pipes are closed: it waits for their end.
  await jail.start();
  for (const descriptor of [0, 1, 2]) {
    assert.match(readlinkSync(`/proc/${jail.pid}/fd/${descriptor}`), /^\/dev\/null/);
  }
  const session = (pid: number | "self") =>
    readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[3];
  assert.notEqual(session(jail.pid), session("self"));
});

test("without --daemonize the jailer becomes the VMM and ends as it ends", async () => {
  await using jail = new Jail();
  const exit = jail.spawn();
  await jail.waitForApi();
  await jail.boot("reset");
  assert.deepEqual(await jail.ended(exit), { code: 0, signal: null });
  await waitFor("the end of all", () => processesOfUid(jail.uid).length === 0, 5_000);
});

test("without --daemonize a bad argument of the VMM is the jailer's exit code", async () => {
  await using jail = new Jail();
  assert.deepEqual(await jail.run({ vmmArgs: ["--turbo"] }), { code: 153, signal: null });
});

test("a guest's reset ends a jail by itself, and its socket and pid file stay", async () => {
  await using jail = new Jail();
  await jail.start();
  const { pid } = jail;
  await jail.boot("reset");
  await waitFor("the end of the VMM", () => !isAlive(pid), 5_000);
  assert.deepEqual(processesOfUid(jail.uid), []);
  assert.ok(existsSync(jail.socket) && existsSync(jail.pidFile));
});

test("--netns puts the VMM into the namespace, where it opens its uid's tap", async () => {
  using netns = new NetworkNamespace();
  await using jail = new Jail();
  netns.addTap("tap0", jail.uid);
  await jail.start({ args: ["--netns", netns.path] });
  for (const pid of family(jail.pid)) {
    const { ino } = statSync(`/proc/${pid}/ns/net`);
    assert.equal(ino, statSync(netns.path).ino);
  }
  const eth0 = { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "06:00:ac:10:00:02" };
  expectDone(await jail.call("PUT", "/network-interfaces/eth0", eth0));
  await jail.boot("idle");
  assert.match(netns.ip("link", "show", "dev", "tap0"), /LOWER_UP/);
});

test("a tap of another uid is not opened", async () => {
  using netns = new NetworkNamespace();
  await using jail = new Jail();
  netns.addTap("tap0", jail.uid + 1);
  await jail.start({ args: ["--netns", netns.path] });
  const eth0 = { iface_id: "eth0", host_dev_name: "tap0" };
  const put = await jail.call("PUT", "/network-interfaces/eth0", eth0);
  // The tap is opened with the request or at the latest with the start.
  if (put.status === 204) await assert.rejects(jail.boot("idle"));
  else expectFault(put);
});

test("files that the uid may not read are refused, root's world-readable ones are taken", async () => {
  await using jail = new Jail();
  const path_on_host = jail.stage("/etc/hostname", "disk");
  chownSync(jail.inside("/disk"), 0, 0);
  await jail.start();
  const drive = { drive_id: "seed", path_on_host, is_root_device: false, is_read_only: true };
  expectFault(await jail.call("PUT", "/drives/seed", drive));
  chmodSync(jail.inside("/disk"), 0o444);
  expectDone(await jail.call("PUT", "/drives/seed", drive));
});

describe("limits", () => {
  const limit = (pid: number, name: string) =>
    new RegExp(`^${name} +(\\S+) +(\\S+)`, "m").exec(readFileSync(`/proc/${pid}/limits`, "utf8"))?.slice(1);
  test("2,048 open files when nothing is said", async () => {
    await using jail = new Jail();
    await jail.start();
    for (const pid of family(jail.pid)) assert.deepEqual(limit(pid, "Max open files"), ["2048", "2048"]);
  });
  test("what --resource-limit says", async () => {
    await using jail = new Jail();
    const args = ["--resource-limit", "no-file=512", "--resource-limit", "fsize=1073741824"];
    await jail.start({ args });
    await jail.boot("idle");
    for (const pid of family(jail.pid)) {
      assert.deepEqual(limit(pid, "Max open files"), ["512", "512"]);
      assert.deepEqual(limit(pid, "Max file size"), ["1073741824", "1073741824"]);
    }
  });
});

test("ten jails start at once and each answers as itself", async () => {
  await using cleanup = new AsyncDisposableStack();
  const jails = Array.from({ length: 10 }, () => cleanup.use(new Jail()));
  await Promise.all(jails.map((jail) => jail.start()));
  for (const jail of jails) {
    const body = JSON.parse((await jail.call("GET", "/")).text) as Record<string, unknown>;
    assert.equal(body["id"], jail.id);
  }
});
