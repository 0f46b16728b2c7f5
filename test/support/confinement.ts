import assert from "node:assert/strict";
import { readdirSync, readFileSync, type Stats, statSync } from "node:fs";
import { basename, join } from "node:path";
import type { Machine } from "../../src/contract/machine.ts";
import { v1Mount, v2Mount } from "../conformance/support/cgroups.ts";
import { statusField } from "../conformance/support/processes.ts";

const MIB = 1024 * 1024;
/** How much more than guest and disk a limit may grant the VMM itself. */
const OVERHEAD_BYTES = 512 * MIB;
const MOST_PIDS = 1024;
const MOST_FILES = 65_536;
const CAPABILITIES = ["CapInh", "CapPrm", "CapEff", "CapAmb"] as const;

/**
 * What production wants of a running machine, read from the kernel and not from the daemon: user, capabilities,
 * namespaces, cgroup, limits, and who may write what in the jail.
 */
export async function assertConfined(rootDir: string, machine: Machine): Promise<void> {
  const { vmm } = machine;
  assert.ok(vmm !== undefined, `${machine.id} has no VMM`);
  assertUser(vmm.pid, vmm.uid, vmm.gid);
  assert.equal(statusField(vmm.pid, "NSpid").split("\t").at(-1), "1", "it is the first of its pid namespace");
  assert.equal(
    statSync(`/proc/${vmm.pid}/ns/net`).ino,
    statSync(`/run/netns/${vmm.netns}`).ino,
    "its network namespace is its slot's",
  );
  assertCgroup(vmm.pid, machine);
  assertLimits(vmm.pid, machine);
  assertJail(join(rootDir, "jails"), machine, vmm);
}

function assertUser(pid: number, uid: number, gid: number): void {
  assert.ok(uid > 0 && gid > 0);
  assert.equal(statusField(pid, "Uid"), Array(4).fill(uid).join("\t"));
  assert.equal(statusField(pid, "Gid"), Array(4).fill(gid).join("\t"));
  assert.equal(statusField(pid, "Groups"), "");
  for (const field of CAPABILITIES) assert.match(statusField(pid, field), /^0+$/, field);
}

/** The groups that the process is in, by controller; that of version 2 under "". */
function groupsOf(pid: number): Map<string, string> {
  const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n");
  return new Map(
    lines.flatMap((line): [string, string][] => {
      const [, controllers = "", ...path] = line.split(":");
      return controllers.split(",").map((controller) => [controller, path.join(":")]);
    }),
  );
}

/** What a file of the process's own group says, wherever its controller is mounted here. */
function limitOf(pid: number, jailId: string, controller: string, v1File: string, v2File: string): number {
  const groups = groupsOf(pid);
  const unified = v2Mount();
  const v1 = v1Mount(controller);
  const [mount, group, file] =
    v1 === undefined ? [unified?.point, groups.get(""), v2File] : [v1, groups.get(controller), v1File];
  assert.ok(mount !== undefined && group !== undefined, `there is no cgroup with ${controller}`);
  assert.equal(basename(group), jailId, `it has a ${controller} group of its own`);
  return Number(readFileSync(join(mount, group, file), "utf8"));
}

function assertCgroup(pid: number, { memory_mib, vmm }: Machine): void {
  const jailId = vmm?.jail_id ?? "";
  const memory = limitOf(pid, jailId, "memory", "memory.limit_in_bytes", "memory.max");
  const guest = memory_mib * MIB;
  assert.ok(memory > guest && memory <= guest + OVERHEAD_BYTES, `memory is limited to ${memory} bytes`);
  const pids = limitOf(pid, jailId, "pids", "pids.max", "pids.max");
  assert.ok(pids > 0 && pids <= MOST_PIDS, `it may have ${pids} processes`);
}

function assertLimits(pid: number, { memory_mib, storage_bytes, vmm }: Machine): void {
  const limits = readFileSync(`/proc/${pid}/limits`, "utf8");
  const both = (name: string): number => {
    const [, soft, hard] = new RegExp(`^${name} +(\\S+) +(\\S+)`, "m").exec(limits) ?? [];
    assert.equal(soft, hard, `${name} can be raised from inside`);
    return Number(soft);
  };
  const fsize = both("Max file size");
  const memory = memory_mib * MIB;
  assert.ok(fsize >= Math.max(memory, storage_bytes), `files may have only ${fsize} bytes`);
  // A disk may double while its machine runs.
  assert.ok(fsize <= Math.max(memory, 2 * storage_bytes) + OVERHEAD_BYTES, `files may have ${fsize} bytes`);
  assert.equal(fsize, vmm?.limits.fsize_bytes, "the machine tells another limit of its files");
  const files = both("Max open files");
  assert.ok(files > 0 && files <= MOST_FILES, `${files} files may be open`);
  assert.equal(files, vmm?.limits.no_file, "the machine tells another limit of its open files");
}

/** Inputs belong to root and can be written by nobody; only the disk and the outputs belong to the machine's user. */
function assertJail(
  jails: string,
  machine: Machine,
  { pid, uid, gid, jail_id }: NonNullable<Machine["vmm"]>,
): void {
  const roots = readdirSync(jails).map((name) => join(jails, name, jail_id, "root"));
  const [root, ...others] = roots.filter((path) => statSync(path, { throwIfNoEntry: false }) !== undefined);
  assert.ok(root !== undefined && others.length === 0, `${machine.id} has one jail`);
  const inside = statSync(`/proc/${pid}/root`);
  const outside = statSync(root);
  assert.deepEqual([inside.dev, inside.ino], [outside.dev, outside.ino], "the jail is all that it sees");
  // A machine that woke carries a receipt, and has what it woke from in place of what it would boot from.
  const inputs = machine.receipt === undefined ? ["kernel", "initrd"] : ["memory", "vmstate"];
  for (const name of [...inputs, "seed.img"]) {
    const { uid: owner, gid: group, mode }: Stats = statSync(join(root, name));
    assert.deepEqual([owner, group, mode & 0o222], [0, 0, 0], `${name} can be written`);
  }
  for (const name of ["disk.img", "console.log", "vmm.log"]) {
    const { uid: owner, gid: group, mode }: Stats = statSync(join(root, name));
    assert.deepEqual([owner, group, mode & 0o077], [uid, gid, 0], `${name} is the machine's alone`);
  }
}
