import assert from "node:assert/strict";
import { chmod, chown, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "../src/system/run.ts";
import {
  compareWithBefore,
  compareWithState,
  type Difference,
  type ExpectedState,
  explain,
  settle,
  takeInventory,
} from "./oracle.ts";
import { Stage } from "./support/oracle/stage.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";
const UID = 200_001;

/** A host on which a daemon seems to run with one machine in slot 1, one snapshot and slot 2 in waiting. */
async function populate(stage: Stage): Promise<ExpectedState> {
  const { rootDir, tag } = stage.scope;
  await stage.nft(
    `table inet computer-host-${tag} { set opened { type ifname . ipv4_addr; elements = { "ch${tag}v1" . 10.200.0.5 }; }; }`,
  );
  await stage.file(`/run/computer-host/claims/${tag}.json`, "{}");
  await stage.slot(1, UID);
  await stage.slot(2, UID + 1);
  for (const file of ["disk.img", "seed.img", "console.log", "vmm.log"])
    await stage.file(`machines/m1/${file}`);
  for (const file of ["disk.img", "manifest.json"]) await stage.file(`snapshots/s1/${file}`);
  await chown(join(rootDir, "machines/m1/disk.img"), UID, UID);
  await stage.folder("jails/firecracker/j1/root");
  const leaves = await stage.cgroup(`computer-host-${tag}/j1`);
  const parents = leaves.map((leaf) => join(leaf, ".."));
  for (const parent of parents) stage.defer(() => run(["rmdir", parent], { okCodes: [0, 1] }));
  await stage.socket(join(rootDir, "firecracker-host.sock"));
  const pid = await stage.process(join(rootDir, "jails/firecracker/j1/root"), `ch-${tag}-1`);
  return {
    machines: [{ id: "m1", phase: "running", slot: 1, vmm: { jail_id: "j1", uid: UID, gid: UID, pid } }],
    snapshots: [{ id: "s1" }],
    operations: [],
    poolSize: 8,
    daemonRuns: true,
  };
}

/** A leak that is planted for real: what it is, and the difference that must be found beside it. */
interface Leak {
  readonly name: string;
  readonly plant: (stage: Stage) => Promise<unknown>;
  readonly expect: Pick<Difference, "kind" | "resource">;
  /** False for what only a comparison with before can know: nothing says whose it is. */
  readonly inState: boolean;
}

const sysctl = (value: string) => (stage: Stage) =>
  stage.exec(["sysctl", "-qw", `net.ipv4.conf.all.log_martians=${value}`]);

const LEAKS: readonly Leak[] = [
  {
    name: "a namespace with a name of ours that no slot has",
    plant: (stage) => stage.namespace(`ch-${stage.scope.tag}-left`),
    expect: { kind: "leaked", resource: "namespace" },
    inState: true,
  },
  {
    name: "a slot's end on the host without its namespace",
    plant: async (stage) => {
      const name = `ch${stage.scope.tag}v9`;
      await stage.ip("link", "add", name, "type", "veth", "peer", "name", "other");
      stage.defer(() => stage.ip("link", "del", name));
    },
    expect: { kind: "leaked", resource: "link" },
    inState: true,
  },
  {
    name: "a tap on the host",
    plant: async (stage) => {
      await stage.ip("tuntap", "add", "tap0", "mode", "tap", "user", String(UID));
      stage.defer(() => stage.ip("link", "del", "tap0"));
    },
    expect: { kind: "leaked", resource: "link" },
    inState: false,
  },
  {
    name: "a second tap in the slot of a machine",
    plant: async (stage) => {
      await stage.exec(["ip", "tuntap", "add", "tap1", "mode", "tap"], `ch-${stage.scope.tag}-1`);
      stage.defer(() => stage.exec(["ip", "link", "del", "tap1"], `ch-${stage.scope.tag}-1`));
    },
    expect: { kind: "leaked", resource: "link" },
    inState: false,
  },
  {
    name: "an address",
    plant: async (stage) => {
      await stage.ip("addr", "add", "10.200.9.1/32", "dev", "lo");
      stage.defer(() => stage.ip("addr", "del", "10.200.9.1/32", "dev", "lo"));
    },
    expect: { kind: "leaked", resource: "address" },
    inState: false,
  },
  {
    name: "a route",
    plant: async (stage) => {
      await stage.ip("route", "add", "blackhole", "10.200.77.0/24");
      stage.defer(() => stage.ip("route", "del", "blackhole", "10.200.77.0/24"));
    },
    expect: { kind: "leaked", resource: "route" },
    inState: false,
  },
  {
    name: "a policy rule",
    plant: async (stage) => {
      await stage.ip("rule", "add", "from", "10.200.0.0/16", "lookup", "77");
      stage.defer(() => stage.ip("rule", "del", "from", "10.200.0.0/16", "lookup", "77"));
    },
    expect: { kind: "leaked", resource: "rule" },
    inState: false,
  },
  {
    name: "an nftables table with our tag",
    plant: async (stage) => {
      await stage.nft(`add table ip computer-host-${stage.scope.tag}-old`);
      stage.defer(() => stage.nft(`delete table ip computer-host-${stage.scope.tag}-old`));
    },
    expect: { kind: "leaked", resource: "nft" },
    inState: true,
  },
  {
    name: "an opened slot that no machine holds",
    plant: async (stage) => {
      const element = `element inet computer-host-${stage.scope.tag} opened { "ch${stage.scope.tag}v2" . 10.200.0.7 }`;
      await stage.nft(`add ${element}`);
      stage.defer(() => stage.nft(`delete ${element}`));
    },
    expect: { kind: "leaked", resource: "nft" },
    inState: true,
  },
  {
    name: "a rule in a table of somebody else",
    plant: async (stage) => {
      await stage.nft("table ip other { chain c { tcp dport 22 drop; }; }");
      stage.defer(() => stage.nft("delete table ip other"));
    },
    expect: { kind: "leaked", resource: "nft" },
    inState: false,
  },
  {
    name: "a changed sysctl",
    plant: async (stage) => {
      await sysctl("1")(stage);
      stage.defer(() => sysctl("0")(stage));
    },
    expect: { kind: "altered", resource: "sysctl" },
    inState: false,
  },
  {
    name: "a cgroup of a jail that is gone",
    plant: (stage) => stage.cgroup(`computer-host-${stage.scope.tag}/j9`),
    expect: { kind: "leaked", resource: "cgroup" },
    inState: true,
  },
  {
    name: "a mount below the root",
    plant: async (stage) => {
      const target = join(stage.scope.rootDir, "jails/firecracker/j1/root");
      await run(["mount", "-t", "tmpfs", "none", target]);
      stage.defer(() => run(["umount", target]));
    },
    expect: { kind: "leaked", resource: "mount" },
    inState: false,
  },
  {
    name: "a mount on a machine's folder that no machine has",
    plant: async (stage) => {
      await stage.folder("machines/gone");
      await run(["mount", "-t", "tmpfs", "none", join(stage.scope.rootDir, "machines/gone")]);
      stage.defer(() => run(["umount", join(stage.scope.rootDir, "machines/gone")]));
    },
    expect: { kind: "leaked", resource: "mount" },
    inState: true,
  },
  {
    name: "a loop device over a deleted file of ours",
    plant: async (stage) => {
      const file = join(stage.scope.rootDir, "left.img");
      await writeFile(file, Buffer.alloc(65_536));
      const device = (await run(["losetup", "--find", "--show", file])).stdout.trim();
      stage.defer(() => run(["losetup", "--detach", device]));
      await rm(file);
    },
    expect: { kind: "leaked", resource: "loop" },
    inState: true,
  },
  {
    name: "a process in a jail that no machine has",
    plant: async (stage) => {
      await stage.folder("jails/firecracker/j8/root");
      await stage.process(join(stage.scope.rootDir, "jails/firecracker/j8/root"));
    },
    expect: { kind: "leaked", resource: "process" },
    inState: true,
  },
  {
    name: "a process whose jail was deleted under it",
    plant: async (stage) => {
      const jail = join(stage.scope.rootDir, "jails/firecracker/j7");
      await stage.folder("jails/firecracker/j7/root");
      await stage.process(join(jail, "root"));
      await rm(jail, { recursive: true });
    },
    expect: { kind: "leaked", resource: "process" },
    inState: true,
  },
  {
    name: "a process in a slot that waits",
    plant: (stage) => stage.process("/", `ch-${stage.scope.tag}-2`),
    expect: { kind: "leaked", resource: "process" },
    inState: true,
  },
  {
    name: "a socket that listens in a slot that waits",
    plant: (stage) => stage.socket(join(stage.scope.watch?.[0] ?? "", "api.sock"), `ch-${stage.scope.tag}-2`),
    expect: { kind: "leaked", resource: "socket" },
    inState: true,
  },
  {
    name: "a file in the folder of a machine",
    plant: (stage) => stage.file("machines/m1/memory"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "the folder of a machine that is gone",
    plant: (stage) => stage.folder("machines/m9"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "the folder of a snapshot that is gone",
    plant: (stage) => stage.folder("snapshots/s9"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "the folder of a jail",
    plant: (stage) => stage.folder("jails/firecracker/j9/root"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "a temporary file that a commit left",
    plant: (stage) => stage.file("state/state.json.0a0b0c0d.tmp"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "a file elsewhere in the root",
    plant: (stage) => stage.file("core"),
    expect: { kind: "leaked", resource: "file" },
    inState: false,
  },
  {
    name: "a link in a watched folder",
    plant: (stage) =>
      symlink("/", join(stage.scope.watch?.[0] ?? "", "link")).then(() =>
        stage.defer(() => rm(join(stage.scope.watch?.[0] ?? "", "link"))),
      ),
    expect: { kind: "leaked", resource: "file" },
    inState: false,
  },
  {
    name: "a disk that others may read",
    plant: async (stage) => {
      const disk = join(stage.scope.rootDir, "machines/m1/disk.img");
      await chmod(disk, 0o666);
      stage.defer(() => chmod(disk, 0o644));
    },
    expect: { kind: "altered", resource: "file" },
    inState: false,
  },
];

test("a host on which all is as the state says is clean, and each planted leak is found", {
  skip,
}, async (t) => {
  await using stage = await Stage.make();
  const state = await populate(stage);
  const before = await takeInventory(stage.scope);
  const judge = async (): Promise<[readonly Difference[], readonly Difference[]]> => {
    const now = await takeInventory(stage.scope);
    return [compareWithBefore(before, now), compareWithState(now, state)];
  };
  const assertClean = async (when: string): Promise<void> => {
    const left = await settle(async () => (await judge()).flat());
    assert.equal(explain(left), "", when);
  };
  await t.test("nothing is found before anything is planted", () => assertClean("at first"));
  for (const leak of LEAKS) {
    await t.test(`it finds ${leak.name}`, async () => {
      {
        await using planted = stage.sub();
        await leak.plant(planted);
        const [sinceBefore, byState] = await judge();
        const isIt = ({ kind, resource }: Difference): boolean =>
          kind === leak.expect.kind && resource === leak.expect.resource;
        assert.ok(sinceBefore.some(isIt), `not found since before:\n${explain(sinceBefore)}`);
        assert.equal(byState.some(isIt), leak.inState, `by the state:\n${explain(byState)}`);
      }
      await assertClean("after it was removed");
    });
  }
});

test("what the state names and the host lacks is found", { skip }, async (t) => {
  await using stage = await Stage.make();
  const state = await populate(stage);
  const inventory = await takeInventory(stage.scope);
  const { rootDir, tag } = stage.scope;
  /** Names of things, each of which a machine, a snapshot or the daemon cannot be without. */
  const needed: readonly (readonly [string, RegExp])[] = [
    ["the namespace of a machine", new RegExp(`^ch-${tag}-1$`)],
    ["the slot's end on the host", new RegExp(`^host: ch${tag}v1$`)],
    ["the end on the host of a slot that waits", new RegExp(`^host: ch${tag}v2$`)],
    ["the tap of a machine", /^slot 1: tap0$/],
    ["the way out of a machine", /^host: element of .* opened: /],
    ["the VMM of a machine", /^jail j1: /],
    ["the cgroups of a machine", /^\/sys\/fs\/cgroup\/.*\/j1$/],
    ["the jail of a machine", new RegExp(`^${rootDir}/jails/firecracker/j1`)],
    ["the disk of a machine", new RegExp(`^${rootDir}/machines/m1/disk.img$`)],
    ["the disk of a snapshot", new RegExp(`^${rootDir}/snapshots/s1/disk.img$`)],
    ["the daemon's table", /^host: table /],
    ["the claim", /^\/run\/computer-host\/claims\//],
    ["the daemon's socket", /^host: .*firecracker-host.sock$/],
  ];
  for (const [what, pattern] of needed) {
    await t.test(`it misses ${what}`, () => {
      const items = inventory.items.filter(({ name }) => !pattern.test(name));
      assert.notEqual(items.length, inventory.items.length, "nothing had that name");
      const found = compareWithState({ scope: stage.scope, items }, state);
      assert.ok(
        found.some(({ kind }) => kind === "missing"),
        explain(found),
      );
    });
  }
  const findings = (change: Partial<ExpectedState>): string =>
    explain(compareWithState(inventory, { ...state, ...change }));
  await t.test("a disk that is not its VMM's is altered", () => {
    const [machine] = state.machines;
    assert.ok(machine?.vmm);
    const vmm = { ...machine.vmm, uid: UID + 5 };
    assert.match(findings({ machines: [{ ...machine, vmm }] }), /^altered file: .*disk.img/m);
  });
  await t.test("a machine that stopped holds nothing but its disk and seed", () => {
    const text = findings({ machines: [{ id: "m1", phase: "stopped" }] });
    for (const resource of ["process", "cgroup", "file", "nft"])
      assert.match(text, new RegExp(`^leaked ${resource}: `, "m"));
    assert.match(text, /^altered file: .*disk.img/m);
  });
  await t.test("a pool larger than it may be is a leak", () => {
    assert.match(findings({ poolSize: 0 }), /^leaked namespace: 1 slots wait/m);
  });
  await t.test("an operation that never ended is a leak", () => {
    assert.match(findings({ operations: ["op-1"] }), /^leaked operation: /m);
  });
  await t.test("a socket that listens after the daemon ended is a leak", () => {
    assert.match(findings({ daemonRuns: false }), /^leaked socket: /m);
  });
});
