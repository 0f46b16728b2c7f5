import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import {
  members,
  rememberSubtreeControl,
  removeGroup,
  v1Mount,
  v2Limit,
  v2Mount,
} from "./support/cgroups.ts";
import { Jail } from "./support/jail.ts";
import { family } from "./support/processes.ts";

describe("control groups", () => {
  const pids = v1Mount("pids");
  const unified = v2Mount();
  const limit = v2Limit();
  test("v1: a group under the parent, with the values and every process in it", {
    skip: pids === undefined && "no v1 pids controller is mounted here",
  }, async () => {
    await using cleanup = new AsyncDisposableStack();
    await using jail = new Jail();
    const parent = `fcconf-${jail.id}`;
    const group = join(pids ?? "", parent, jail.id);
    // Declared before the jail, so that it runs after the VMM has ended.
    cleanup.defer(async () => await removeGroup(group));
    await jail.start({
      args: ["--cgroup-version", "1", "--parent-cgroup", parent, "--cgroup", "pids.max=77"],
    });
    await jail.boot("idle");
    assert.equal(readFileSync(join(group, "pids.max"), "utf8"), "77\n");
    const inside = members(group);
    for (const pid of family(jail.pid)) assert.ok(inside.includes(pid), `${pid} in ${inside.join(" ")}`);
  });

  test("v1 groups of several controllers are made where each is mounted", {
    skip: (pids === undefined || v1Mount("memory") === undefined) && "no v1 controllers are mounted here",
  }, async () => {
    await using cleanup = new AsyncDisposableStack();
    await using jail = new Jail();
    const parent = `fcconf-${jail.id}`;
    const groups = ["pids", "memory", "cpu"].map((name) => join(v1Mount(name) ?? "", parent, jail.id));
    for (const group of groups) cleanup.defer(async () => await removeGroup(group));
    const values = ["pids.max=99", "memory.limit_in_bytes=536870912", "cpu.shares=512"];
    await jail.start({
      args: ["--parent-cgroup", parent, ...values.flatMap((value) => ["--cgroup", value])],
    });
    const [pidsGroup = "", memoryGroup = "", cpuGroup = ""] = groups;
    assert.equal(readFileSync(join(pidsGroup, "pids.max"), "utf8"), "99\n");
    assert.equal(readFileSync(join(memoryGroup, "memory.limit_in_bytes"), "utf8"), "536870912\n");
    assert.equal(readFileSync(join(cpuGroup, "cpu.shares"), "utf8"), "512\n");
    for (const group of groups) assert.ok(members(group).includes(jail.pid), group);
  });

  test("v2: a leaf under the parent, with the values and every process in it", {
    skip: limit === undefined && "no v2 hierarchy with a controller of use is mounted here",
  }, async () => {
    if (unified === undefined || limit === undefined) return;
    await using cleanup = new AsyncDisposableStack();
    await using jail = new Jail();
    const parent = `fcconf-${jail.id}`;
    const group = join(unified.point, parent, jail.id);
    cleanup.defer(rememberSubtreeControl(unified.point));
    cleanup.defer(async () => await removeGroup(group));
    const value = `${limit.file}=${limit.value}`;
    await jail.start({ args: ["--cgroup-version", "2", "--parent-cgroup", parent, "--cgroup", value] });
    await jail.boot("idle");
    assert.equal(readFileSync(join(group, limit.file), "utf8"), `${limit.value}\n`);
    const inside = members(group);
    for (const pid of family(jail.pid)) assert.ok(inside.includes(pid), `${pid} in ${inside.join(" ")}`);
  });

  test("v2: without values the VMM moves into a parent that is there", {
    skip: unified === undefined && "no v2 hierarchy is mounted here",
  }, async () => {
    await using cleanup = new AsyncDisposableStack();
    await using jail = new Jail();
    const parent = join(unified?.point ?? "", `fcconf-${jail.id}`);
    mkdirSync(parent);
    cleanup.defer(async () => await removeGroup(join(parent, "none")));
    await jail.start({ args: ["--cgroup-version", "2", "--parent-cgroup", `fcconf-${jail.id}`] });
    await jail.boot("idle");
    const inside = members(parent);
    for (const pid of family(jail.pid)) assert.ok(inside.includes(pid), `${pid} in ${inside.join(" ")}`);
  });

  test("v2: a controller that is not there is refused", {
    skip: unified === undefined && "no v2 hierarchy is mounted here",
  }, async () => {
    await using jail = new Jail();
    assert.equal((await jail.run({ args: ["--cgroup-version", "2", "--cgroup", "warp.max=1"] })).code, 1);
  });
});
