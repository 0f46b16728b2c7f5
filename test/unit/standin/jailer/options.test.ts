import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { JAILER_ARGUMENTS } from "../../../../src/standin/jailer/arguments.ts";
import { JailerError } from "../../../../src/standin/jailer/jailer-error.ts";
import {
  type JailOptions,
  parseResourceLimits,
  readOptions,
} from "../../../../src/standin/jailer/options.ts";
import { parseArguments } from "../../../../src/standin/shared/arguments.ts";

let dir = "";
before(() => {
  dir = mkdtempSync(join(tmpdir(), "jail-options-"));
  writeFileSync(join(dir, "vmm"), "");
  chmodSync(join(dir, "vmm"), 0o755);
});
after(() => rmSync(dir, { recursive: true }));

function read(change: Readonly<Record<string, string>>, more: readonly string[] = []): JailOptions {
  const given = {
    id: "a",
    "exec-file": join(dir, "vmm"),
    uid: "1",
    gid: "2",
    "chroot-base-dir": dir,
    ...change,
  };
  const argv = Object.entries(given).flatMap(([name, value]) => [`--${name}`, value]);
  return readOptions(parseArguments(JAILER_ARGUMENTS, [...argv, ...more]));
}

test("the jail's root lies under the base, the program's name and the id", () => {
  const options = read({}, ["--daemonize", "--", "--api-sock", "/x"]);
  assert.equal(options.rootDir, join(dir, "vmm/a/root"));
  assert.equal(options.daemonize, true);
  assert.equal(options.newPidNs, false);
  assert.deepEqual(options.extra, ["--api-sock", "/x"]);
  assert.equal(options.cgroups, undefined);
  assert.deepEqual(options.limits, { noFile: 2048n, fileSize: undefined });
});

for (const [name, change, message] of [
  ["a bad id", { id: "a_b" }, "Invalid instance ID: Invalid char (_) at position 1"],
  ["an id that climbs", { id: ".." }, "Invalid instance ID: Invalid char (.) at position 0"],
  ["a uid that is no number", { uid: "root" }, "Invalid uid: root"],
  ["a gid beyond 32 bits", { gid: "4294967296" }, "Invalid gid: 4294967296"],
  [
    "a base that is missing",
    { "chroot-base-dir": "/nowhere" },
    "Failed to canonicalize path /nowhere: No such file or directory (os error 2)",
  ],
  ["a program that is a folder", { "exec-file": "/usr" }, "/usr is not a file"],
  [
    "a parent cgroup that climbs",
    { "parent-cgroup": "a/../../b" },
    "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
  ],
  [
    "an absolute parent cgroup",
    { "parent-cgroup": "/a" },
    "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
  ],
  [
    "a cgroup version that is no number",
    { "cgroup-version": "x" },
    "x is an invalid cgroup version specifier",
  ],
] as const) {
  test(`${name} is refused in the jailer's words`, () => {
    assert.throws(() => read(change), { name: "JailerError", message });
  });
}

test("resource limits are read, the last of a kind wins", () => {
  assert.deepEqual(parseResourceLimits(["fsize=10", "no-file=20", "fsize=30"]), {
    noFile: 20n,
    fileSize: 30n,
  });
});

for (const [limit, message] of [
  ["fsize", "Invalid format for resources limits: fsize"],
  ["memory=1", "Invalid resource argument: memory"],
  ["fsize=", "Invalid limit value for resource: : cannot parse integer from empty string"],
  ["fsize=-1", "Invalid limit value for resource: -1: invalid digit found in string"],
  [
    "no-file=18446744073709551616",
    "Invalid limit value for resource: 18446744073709551616: number too large to fit in target type",
  ],
] as const) {
  test(`the resource limit ${limit} is refused`, () => {
    assert.throws(
      () => parseResourceLimits([limit]),
      (error) => error instanceof JailerError && error.message === message,
    );
  });
}
