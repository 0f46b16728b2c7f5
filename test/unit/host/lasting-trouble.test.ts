import assert from "node:assert/strict";
import { test } from "node:test";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { Host } from "../../../src/host/host.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { assertMatches, restarted, Trouble } from "../../support/host-trouble.ts";

const one = machineId("one");
const m1 = snapshotId("m1");
const take = (host: Host, snapshot_id: string, memory: "full" | "diff") =>
  host.snapshot(one, { snapshot_id, memory }, host.trace());

const SCENARIOS: Readonly<Record<string, (host: Host) => Promise<unknown>>> = {
  "full snapshot": (host) => take(host, "m2", "full"),
  "diff snapshot": (host) => take(host, "m2", "diff"),
  "live restore": (host) => host.restore(m1, { machine_id: "two" }, host.trace()),
};

/** A daemon that took over a machine with a memory base, and whose rooms fail for good from a call on, undos and all. */
async function begin(trouble: Trouble, at: number): Promise<FakeHost> {
  const first = await makeFakeHost();
  await first.host.create({ machine_id: "one", track_dirty_pages: true }, first.trace());
  await take(first.host, "m1", "full");
  await first.host.close();
  const second = await restarted(first, trouble);
  trouble.arm(at);
  return second;
}

const savesOf = ({ vmms, state }: FakeHost): number =>
  vmms.jails.get(state.state.machines.get(one)?.vmm?.jail_id ?? "")?.saved.length ?? 0;

for (const [name, run] of Object.entries(SCENARIOS)) {
  test(`a ${name} in which everything fails from some call on is settled by the next start`, async () => {
    for (let at = 1, finished = false; !finished; at += 1) {
      const trouble = new Trouble("fail for good");
      const second = await begin(trouble, at);
      const before = savesOf(second);
      const worked = await run(second.host).then(
        () => true,
        () => false,
      );
      finished = !trouble.happened;
      const when = `from call ${at} on`;
      assert.equal(worked, finished, when);
      trouble.end();
      // The VMM that saved began to note anew what changed: nothing may be written over what was there before.
      if (!worked && savesOf(second) > before)
        await assert.rejects(take(second.host, "m3", "diff"), { code: "no_memory_base" }, when);

      const third = await restarted(second, undefined);
      await assertMatches(third, when);
      if (!worked && savesOf(third) > before)
        await assert.rejects(take(third.host, "m3", "diff"), { code: "no_memory_base" }, when);
      await take(third.host, "m4", "full");
      await third.host.close();
    }
  });
}

test("a snapshot whose files could not be removed can be taken again under its id", async () => {
  for (let at = 1, finished = false; !finished; at += 1) {
    const trouble = new Trouble("fail for good");
    const second = await begin(trouble, at);
    finished = await take(second.host, "m2", "full").then(
      () => true,
      () => false,
    );
    trouble.end();
    if (!finished) await take(second.host, "m2", "full");
    await assertMatches(second, `from call ${at} on, and again`);
    await second.host.close();
  }
});

test("an id under which a snapshot of another machine could not be undone is taken until that is settled", async () => {
  const trouble = new Trouble("fail for good");
  // Past the save: the base is in doubt, and nothing could say so.
  const second = await begin(trouble, 6);
  const before = savesOf(second);
  await assert.rejects(take(second.host, "m2", "full"));
  trouble.end();
  assert.equal(savesOf(second), before + 1);
  await second.host.create({ machine_id: "two" }, second.host.trace());
  const ofAnother = second.host.snapshot(machineId("two"), { snapshot_id: "m2" }, second.host.trace());
  await assert.rejects(ofAnother, { code: "snapshot_exists", details: { machine_id: "one" } });
  await assert.rejects(take(second.host, "m3", "diff"), { code: "no_memory_base" });
  await take(second.host, "m2", "full");
  await take(second.host, "m3", "diff");
  await assertMatches(second, "taken again");
  await second.host.close();
});
