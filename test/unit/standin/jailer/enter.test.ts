import assert from "node:assert/strict";
import { test } from "node:test";

import { entryCommand } from "../../../../src/standin/jailer/enter.ts";
import type { JailOptions } from "../../../../src/standin/jailer/options.ts";

const OPTIONS: JailOptions = {
  id: "a",
  execFile: "/opt/vmm",
  execName: "vmm",
  rootDir: "/jails/vmm/a/root",
  uid: 7,
  gid: 8,
  netns: undefined,
  daemonize: false,
  newPidNs: false,
  cgroups: undefined,
  limits: { noFile: 2048n, fileSize: undefined },
  extra: [],
};

function enter(change: Partial<JailOptions>, isSessionLeader = false) {
  return entryCommand({
    options: { ...OPTIONS, ...change },
    nodeFile: "/node",
    codeDir: "/code",
    accelerator: "tcg",
    uffdMinor: undefined,
    isSessionLeader,
    programArguments: ["--id", "a"],
  });
}

test("limits come first, then the namespaces, then the way in", () => {
  const { argv } = enter({ netns: "/run/netns/n", limits: { noFile: 9n, fileSize: 5n } });
  assert.deepEqual(argv.slice(0, 8), [
    "/usr/bin/prlimit",
    "--nofile=9:9",
    "--fsize=5:5",
    "/usr/bin/nsenter",
    "--net=/run/netns/n",
    "/usr/bin/unshare",
    "--mount",
    "--propagation",
  ]);
  assert.deepEqual(argv.slice(-4), ["7:8", "/vmm", "--id", "a"]);
});

test("without a network namespace the host's stays", () => {
  assert.ok(!enter({}).argv.includes("/usr/bin/nsenter"));
});

test("each pair of daemonize and new-pid-ns has a way of its own", () => {
  const modeOf = (change: Partial<JailOptions>, leader = false): string | undefined => {
    const { argv } = enter(change, leader);
    return argv[argv.indexOf("vmm") + 1];
  };
  assert.equal(modeOf({}), "plain");
  assert.equal(modeOf({ newPidNs: true }), "plain-pidns");
  assert.equal(modeOf({ newPidNs: true }, true), "session-pidns");
  assert.equal(modeOf({ daemonize: true }), "daemon");
  assert.equal(modeOf({ daemonize: true, newPidNs: true }, true), "daemon-pidns");
});

test("the VMM's environment holds nothing of the caller's", () => {
  assert.deepEqual(Object.keys(enter({}).env).toSorted(), ["FORK", "PATH", "STANDIN_ACCELERATOR"]);
});
