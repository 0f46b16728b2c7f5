import assert from "node:assert/strict";
import { chown } from "node:fs/promises";
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
import { LEAKS, UID } from "./support/oracle/leaks.ts";
import { Stage } from "./support/oracle/stage.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";

/** A host on which a daemon seems to run with one machine in slot 1, one snapshot and slot 2 in waiting. */
async function populate(stage: Stage): Promise<ExpectedState> {
  const { rootDir, tag } = stage.scope;
  await stage.nft(
    `table inet computer-host-${tag} { set opened { type ifname . ipv4_addr; elements = { "ch${tag}v1" . 10.200.0.5 }; }; }`,
  );
  await stage.file(`/run/computer-host/claims/${tag}.json`, "{}");
  await stage.slot(1, UID);
  await stage.slot(2, UID + 1);
  for (const file of ["disk.img", "seed.img", "console.log", "vmm.log", "metrics.jsonl"])
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
