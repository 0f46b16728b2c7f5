import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Audit, AuditItem, Repair } from "../../src/contract/audit.ts";
import type { Machine } from "../../src/contract/machine.ts";
import { run } from "../../src/system/run.ts";
import { placeIn } from "../support/playground.ts";
import { inStubWorld } from "../support/stub-world.ts";
import { machineOf, untilFailed, vmmOf } from "../support/tiny-machine.ts";
import type { World } from "../support/world.ts";

/** The patrol mends, too; where it is not what is tried it stands still. */
const AT_ONCE = { FIRECRACKER_HOST_RECONCILE_INTERVAL: "200ms" };

/** What somebody does to the host, and what the audit says of it. */
interface Meddling {
  readonly what: string;
  readonly deed: (world: World, machine: Machine) => unknown;
  /** Each names an item that is not as it should be: status, resource, and a part of its name. */
  readonly named: (world: World, machine: Machine) => readonly string[];
}

const MEDDLINGS: readonly Meddling[] = [
  {
    what: "the host's firewall is reloaded with a flush",
    deed: ({ playground }) => playground.host.run(["nft", "flush", "ruleset"]),
    named: ({ tag }) => [`missing nftables table inet computer-host-${tag}`],
  },
  {
    what: "a tap is deleted",
    deed: (_, machine) => placeIn(vmmOf(machine).netns).run(["ip", "link", "del", "tap0"]),
    named: (_, machine) => [`missing link tap0 in ${vmmOf(machine).netns}`],
  },
  {
    what: "the name of a namespace is deleted",
    deed: ({ playground }, machine) => playground.host.run(["ip", "netns", "del", vmmOf(machine).netns]),
    named: (_, machine) => [`missing namespace ${vmmOf(machine).netns}`],
  },
  {
    what: "a veth pair is deleted",
    deed: ({ playground }, machine) => playground.host.run(["ip", "link", "del", veth(machine)]),
    named: (_, machine) => [
      `missing link ${veth(machine)}`,
      `missing link uplink0 in ${vmmOf(machine).netns}`,
      `missing route default in ${vmmOf(machine).netns}`,
    ],
  },
  {
    what: "the rules of a slot are flushed",
    deed: (_, machine) => placeIn(vmmOf(machine).netns).run(["nft", "flush", "ruleset"]),
    named: (_, machine) => [`missing nftables table inet computer-host in ${vmmOf(machine).netns}`],
  },
  {
    what: "a cgroup is deleted",
    deed: async (_, machine) => {
      const { pid, jail_id } = vmmOf(machine);
      for (const leaf of await cgroupsOf(pid, jail_id)) {
        writeFileSync(join(leaf, "../../cgroup.procs"), String(pid));
        rmdirSync(leaf);
      }
    },
    named: (_, machine) => [`missing cgroup ${vmmOf(machine).jail_id}`],
  },
  {
    what: "sysctls are edited",
    deed: async ({ playground }, machine) => {
      const off = (path: string): string => `echo 0 > /proc/sys/net/ipv4/${path}`;
      await playground.host.run(["sh", "-c", off(`conf/${veth(machine)}/forwarding`)]);
      await placeIn(vmmOf(machine).netns).run(["sh", "-c", off("conf/uplink0/arp_ignore")]);
    },
    named: (_, machine) => [
      `altered sysctl net.ipv4.conf.${veth(machine)}.forwarding`,
      `altered sysctl net.ipv4.conf.uplink0.arp_ignore in ${vmmOf(machine).netns}`,
    ],
  },
  {
    what: "the claim and the pool's route are removed",
    deed: async ({ playground, tag }) => {
      rmSync(`/run/computer-host/claims/${tag}.json`);
      await playground.host.run(["ip", "route", "del", "unreachable", "10.200.0.0/24"]);
    },
    named: ({ tag }) => [
      `missing claim /run/computer-host/claims/${tag}.json`,
      "missing route unreachable 10.200.0.0/24",
    ],
  },
  {
    what: "a namespace and a link of no machine are planted",
    deed: async ({ playground, tag }) => {
      await playground.host.run(["ip", "netns", "add", `ch-${tag}-99`]);
      await playground.host.run([
        "ip",
        "link",
        "add",
        `ch${tag}v98`,
        "type",
        "veth",
        "peer",
        "name",
        "planted",
      ]);
    },
    named: ({ tag }) => [`leaked namespace ch-${tag}-98`, `leaked namespace ch-${tag}-99`],
  },
  {
    what: "a jail and a cgroup of no machine are planted",
    deed: async ({ rootDir }, machine) => {
      mkdirSync(join(rootDir, "jails", "stub-firecracker", "planted", "root"), { recursive: true });
      const { pid, jail_id } = vmmOf(machine);
      for (const leaf of await cgroupsOf(pid, jail_id)) mkdirSync(join(leaf, "../stray"));
    },
    named: () => ["leaked cgroup stray", "leaked jail planted"],
  },
  {
    what: "folders and half-made files of nobody are planted",
    deed: ({ rootDir }) => {
      for (const folder of ["machines/nobody", "snapshots/nobody", "staging/snapshot-nobody"])
        mkdirSync(join(rootDir, folder));
      writeFileSync(join(rootDir, "staging/file-0"), "half");
    },
    named: ({ rootDir }) => [
      `leaked file ${rootDir}/staging/file-0`,
      `leaked folder ${rootDir}/machines/nobody`,
      `leaked folder ${rootDir}/snapshots/nobody`,
      `leaked folder ${rootDir}/staging/snapshot-nobody`,
    ],
  },
];

test("an administrator meddles with the host; the audit names it, and the repair mends it under machines that run", async (t) => {
  await inStubWorld(async (world, { body }) => {
    const [one, two] = [await world.create("one", body), await world.create("two", body)];
    assert.deepEqual(await wrong(world), [], "nothing is wrong before anything was done");
    for (const { what, deed, named } of MEDDLINGS) {
      await t.test(what, async () => {
        await deed(world, one);
        // What was planted is as old as a leak is.
        await sleep(100);
        assert.deepEqual(await wrong(world), [...named(world, one)].sort());
        const { repaired, audit } = await repair(world);
        assert.ok(
          repaired.every(({ ok }) => ok),
          JSON.stringify(repaired),
        );
        assert.deepEqual(wrongOf(audit), []);
        assert.equal(audit.clean, true);
        await assertRunOn(world, [one, two]);
      });
    }

    await t.test("a VMM is killed", async () => {
      process.kill(vmmOf(two).pid, "SIGKILL");
      const { error, ended } = await untilFailed(world, "two");
      assert.equal(ended?.how, "killed");
      assert.match(error ?? "", /killed/);
      assert.deepEqual(await wrong(world), []);
      await assertRunOn(world, [one]);
    });

    await t.test("the disk of a machine is deleted", async () => {
      const disk = join(world.rootDir, "machines/one/disk.img");
      rmSync(disk);
      assert.deepEqual(await wrong(world), [`missing file ${disk}`]);
      const { repaired } = await repair(world);
      assert.deepEqual(
        repaired.map(({ action, ok }) => [action, ok]),
        [["marked machine one as failed", true]],
      );
      const { phase, error } = await machineOf(world, "one");
      assert.equal(phase, "failed");
      assert.match(error ?? "", /its disk is gone/);
      const again = await repair(world);
      assert.deepEqual(
        again.repaired.map(({ ok }) => ok),
        [false],
        "a disk that is gone cannot be made again",
      );
    });
  });
});

test("the patrol mends by itself, the socket's file too, and says so once", async (t) => {
  await inStubWorld(
    async (world, { body }) => {
      const one = await world.create("one", body);
      await t.test("the socket's file is removed", async () => {
        rmSync(world.socket);
        await until(() => existsSync(world.socket), "there is a socket again");
        assert.equal((await world.get("/health")).status, 200);
        assert.match((await run(["stat", "-c", "%a", world.socket])).stdout, /660/);
      });
      await t.test("tables, names and leaks", async () => {
        await world.playground.host.run(["nft", "flush", "ruleset"]);
        await world.playground.host.run(["ip", "netns", "del", vmmOf(one).netns]);
        mkdirSync(join(world.rootDir, "machines/nobody"));
        await until(async () => (await audit(world)).clean, "everything is as it should be");
        await assertRunOn(world, [one]);
      });
      await t.test("what cannot be mended is logged once", async () => {
        mkdirSync(join(world.rootDir, "machines/one (copy)"));
        await sleep(1500);
        const lines = world.log.split("\n").filter((line) => line.includes("one (copy)"));
        assert.equal(lines.length, 1, lines.join("\n"));
        rmSync(join(world.rootDir, "machines/one (copy)"), { recursive: true });
      });
    },
    { env: AT_ONCE },
  );
});

test("a daemon that starts again mends what was done while it was away, and takes the machines over", async () => {
  await inStubWorld(async (world, { body }) => {
    const one = await world.create("one", body);
    await world.endDaemon("SIGKILL");
    await world.playground.host.run(["ip", "netns", "del", vmmOf(one).netns]);
    await world.playground.host.run(["nft", "flush", "ruleset"]);
    const { pid, jail_id } = vmmOf(one);
    for (const leaf of await cgroupsOf(pid, jail_id)) {
      writeFileSync(join(leaf, "../../cgroup.procs"), String(pid));
      rmdirSync(leaf);
    }
    mkdirSync(join(world.rootDir, "staging/snapshot-nobody"));
    await world.startDaemon();
    assert.deepEqual(await wrong(world), []);
    await assertRunOn(world, [one]);
  });
});

async function audit(world: World): Promise<Audit> {
  const { status, body } = await world.get("/audit");
  assert.equal(status, 200, JSON.stringify(body));
  return body;
}

async function repair(world: World): Promise<Repair> {
  const { status, body } = await world.post("/audit/repair");
  assert.equal(status, 200, JSON.stringify(body));
  return body;
}

function wrongOf({ items }: Audit): string[] {
  return items
    .filter(({ status }: AuditItem) => status !== "ok")
    .map(({ status, resource, name }) => `${status} ${resource} ${name}`)
    .sort();
}

async function wrong(world: World): Promise<string[]> {
  return wrongOf(await audit(world));
}

/** The machines run as they did, under the same pid, and the oracle agrees. */
async function assertRunOn(world: World, machines: readonly Machine[]): Promise<void> {
  for (const before of machines) {
    const now = await machineOf(world, before.id);
    assert.equal(now.phase, "running", String(now.error));
    assert.equal(vmmOf(now).pid, vmmOf(before).pid);
    assert.ok(existsSync(`/proc/${vmmOf(now).pid}`));
  }
  await world.assertMatchesState();
}

/** The host's end of a machine's veth pair. */
function veth(machine: Machine): string {
  return vmmOf(machine).netns.replace(/^ch-(.*)-(\d+)$/, "ch$1v$2");
}

/** The leaves of a VMM's cgroup, in each hierarchy. */
async function cgroupsOf(pid: number, jailId: string): Promise<string[]> {
  const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8").split("\n");
  const paths = lines
    .flatMap((line) => /^[^:]*:[^:]*:(.*)$/.exec(line)?.[1] ?? [])
    .filter((path) => path.endsWith(`/${jailId}`));
  const mounts = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2")
    .flatMap(([, mount]) => mount ?? []);
  const leaves = mounts.flatMap((mount) => paths.map((path) => join(mount, path)));
  return [...new Set(leaves)].filter((leaf) => existsSync(leaf));
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt += 1, await sleep(50)) if (await condition()) return;
  throw new Error(`it never came to be that ${what}`);
}
