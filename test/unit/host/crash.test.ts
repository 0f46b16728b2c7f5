import assert from "node:assert/strict";
import { test } from "node:test";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { Host } from "../../../src/host/host.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { assertMatches, restarted, Trouble } from "../../support/host-trouble.ts";

const one = machineId("one");
const s1 = snapshotId("s1");

const phases = ({ host }: FakeHost): string =>
  host
    .listMachines()
    .map(({ id, phase }) => `${id} ${phase}`)
    .join(", ");

const wholly = ({ host }: FakeHost): unknown =>
  host
    .listMachines()
    .map(({ id, phase, paused, memory_mib, storage_bytes, runtime_host, hostname }) => [
      `${id} ${phase}${paused === true ? " paused" : ""}`,
      memory_mib,
      storage_bytes / 2 ** 20,
      runtime_host,
      hostname,
    ]);
const AT_SLOT_0 = "10.200.0.1";

/** By id: two may be made within the same millisecond. */
const kinds = (host: Host): string[] =>
  host
    .listSnapshots(one)
    .map(({ id, memory }) => `${id} ${memory}`)
    .sort();
/** Whether the machine has memory that a diff could stand on, beside the ids of its snapshots. */
const withMemory = ({ host, state }: FakeHost): unknown => [
  state.state.machines.get(one)?.has_memory_base ?? false,
  kinds(host),
];
const takeFull = (host: Host) => host.snapshot(one, { snapshot_id: "m1", memory: true }, host.trace());

interface Scenario {
  /** What was done to the machine before the daemon started that gets into trouble. */
  readonly before?: (host: Host) => Promise<unknown>;
  readonly run: (host: Host) => Promise<unknown>;
  readonly ends: (fakes: FakeHost) => unknown;
  /** What starts find: the operation done, or as if it had never been. One that only goes forward is always done. */
  readonly found: readonly [done: unknown, undone?: unknown];
}

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  create: {
    run: (host) => host.create({ machine_id: "two" }, host.trace()),
    ends: phases,
    found: ["one running, two running", "one running"],
  },
  restore: {
    run: (host) => host.restore(s1, { machine_id: "two" }, host.trace()),
    ends: phases,
    found: ["one running, two running", "one running"],
  },
  stop: { run: (host) => host.stop(one, host.trace()), ends: phases, found: ["one stopped"] },
  delete: { run: (host) => host.delete(one, host.trace()), ends: phases, found: [""] },
  start: {
    before: (host) => host.stop(one, host.trace()),
    run: (host) => host.start(one, host.trace()),
    ends: wholly,
    found: [[["one running", 512, 512, AT_SLOT_0, "one"]], [["one stopped", 512, 512, undefined, "one"]]],
  },
  pause: {
    run: (host) => host.pause(one, host.trace()),
    ends: wholly,
    found: [
      [["one running paused", 512, 512, AT_SLOT_0, "one"]],
      [["one running", 512, 512, AT_SLOT_0, "one"]],
    ],
  },
  resume: {
    before: (host) => host.pause(one, host.trace()),
    run: (host) => host.resume(one, host.trace()),
    ends: wholly,
    found: [
      [["one running", 512, 512, AT_SLOT_0, "one"]],
      [["one running paused", 512, 512, AT_SLOT_0, "one"]],
    ],
  },
  resize: {
    before: (host) => host.stop(one, host.trace()),
    run: (host) => host.resize(one, { memory_mib: 256, storage_bytes: 2 ** 30 }, host.trace()),
    ends: wholly,
    found: [[["one stopped", 256, 1024, undefined, "one"]]],
  },
  "stop of a paused machine": {
    before: (host) => host.pause(one, host.trace()),
    run: (host) => host.stop(one, host.trace()),
    ends: phases,
    found: ["one stopped"],
  },
  "snapshot of a paused machine": {
    before: (host) => host.pause(one, host.trace()),
    run: (host) => host.snapshot(one, { snapshot_id: "s2" }, host.trace()),
    ends: ({ host }) => [host.getMachine(one).paused, ...host.listSnapshots(one).map(({ id }) => id)],
    found: [
      [true, "s1", "s2"],
      [true, "s1"],
    ],
  },
  snapshot: {
    run: (host) => host.snapshot(one, { snapshot_id: "s2" }, host.trace()),
    ends: ({ host }) => host.listSnapshots(one).map(({ id }) => id),
    found: [["s1", "s2"], ["s1"]],
  },
  "snapshot with memory": {
    run: (host) => host.snapshot(one, { snapshot_id: "m1", memory: true }, host.trace()),
    ends: withMemory,
    found: [
      [true, ["m1 full", "s1 none"]],
      [false, ["s1 none"]],
    ],
  },
  "diff on a full snapshot": {
    before: takeFull,
    run: (host) => host.snapshot(one, { snapshot_id: "m2", memory: "diff" }, host.trace()),
    ends: ({ host }) => kinds(host),
    found: [
      ["m1 full", "m2 diff", "s1 none"],
      ["m1 full", "s1 none"],
    ],
  },
  "live restore": {
    before: takeFull,
    run: (host) => host.restore(snapshotId("m1"), { machine_id: "two" }, host.trace()),
    ends: ({ host }) =>
      host.listMachines().map(({ id, phase, receipt }) => [id, phase, receipt?.every(({ done }) => done)]),
    found: [
      [
        ["one", "running", undefined],
        ["two", "running", true],
      ],
      [["one", "running", undefined]],
    ],
  },
  "stop of a machine with a memory base": {
    before: takeFull,
    run: (host) => host.stop(one, host.trace()),
    ends: phases,
    found: ["one stopped"],
  },
  "delete of a snapshot": {
    run: (host) => host.deleteSnapshot(s1, host.trace()),
    ends: ({ host }) => host.listSnapshots(one).map(({ id }) => id),
    found: [[]],
  },
};

/** A daemon with a running machine and a snapshot of it, that has just started, with trouble ahead. */
async function begin(trouble: Trouble, at: number, before: Scenario["before"]): Promise<FakeHost> {
  const first = await makeFakeHost();
  await first.host.create({ machine_id: "one", track_dirty_pages: true }, first.trace());
  await first.host.snapshot(one, { snapshot_id: "s1" }, first.trace());
  await before?.(first.host);
  await first.host.close();
  const second = await restarted(first, trouble);
  trouble.arm(at);
  return second;
}

const textOf = (value: unknown): string => JSON.stringify(value);

for (const [name, { before, run, ends, found }] of Object.entries(SCENARIOS)) {
  test(`a daemon killed anywhere in a ${name} leaves it done or undone, and nothing else`, async () => {
    const seen = new Set<string>();
    for (let at = 1, finished = false; !finished; at += 1) {
      const trouble = new Trouble("cut");
      const second = await begin(trouble, at, before);
      await Promise.race([run(second.host), trouble.gone]);
      finished = !trouble.happened;

      await using third = await restarted(second, undefined);
      await assertMatches(third, `cut off at call ${at}`);
      const now = textOf(ends(third));
      assert.ok(found.map(textOf).includes(now), `cut off at call ${at}: ${now}`);
      seen.add(now);
      if (finished) assert.ok(at > 3, "it was cut off in the middle, too");
    }
    assert.equal(seen.size, found.length);
  });

  test(`a ${name} in which any one call fails is undone, or finished by the next try`, async () => {
    for (let at = 1, finished = false; !finished; at += 1) {
      const trouble = new Trouble("fail");
      const second = await begin(trouble, at, before);
      const worked = await run(second.host).then(
        () => true,
        () => false,
      );
      finished = !trouble.happened;
      const [done, undone] = found;
      const goesBack = undone !== undefined;
      if (!worked && goesBack) await assertMatches(second, `call ${at} failed`);
      if (!worked && !goesBack) await run(second.host);
      assert.equal(textOf(ends(second)), textOf(worked || !goesBack ? done : undone), `call ${at} failed`);

      await using third = await restarted(second, undefined);
      await assertMatches(third, `after a start, call ${at} having failed`);
      assert.equal(textOf(ends(third)), textOf(worked || !goesBack ? done : undone));
    }
  });
}
