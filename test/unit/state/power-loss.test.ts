import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { openState } from "../../../src/state/store.ts";
import type { Change } from "../../../src/state/types.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { plain, putOperation, rememberingLog } from "./records.ts";

const dir = "/root/state";
const log = rememberingLog();
const NAMES = ["a", "b", "c", "d"];

/** What the operations are after each of the commits, as `plain` shows them. */
function history(commits: readonly (readonly Change[])[]): unknown[] {
  const operations = new Map<string, unknown>();
  const now = (): unknown => ({
    machines: [],
    snapshots: [],
    operations: [...operations.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, record]) => record),
  });
  return [
    now(),
    ...commits.map((changes) => {
      for (const change of changes) {
        if ("put" in change) operations.set(change.record.id, change.record);
        else operations.delete(change.id);
      }
      return now();
    }),
  ];
}

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(fc.constantFrom(...NAMES), fc.nat(59)).map(([id, second]) => putOperation(id, second)),
  fc.constantFrom(...NAMES).map((id): Change => ({ drop: "operation", id })),
);
const commit = fc.array(change, { minLength: 1, maxLength: 3 });
/** Groups of commits that are made at the same time; `reopen` stands for a clean restart in between. */
const life = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.array(commit, { minLength: 1, maxLength: 4 }) },
    { weight: 1, arbitrary: fc.constant("reopen" as const) },
  ),
  {
    minLength: 1,
    maxLength: 12,
  },
);

test("the journal cut at any byte gives back exactly the commits whose lines are whole", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(commit, { minLength: 1, maxLength: 6 }), async (commits) => {
      const disk = new MemoryDisk();
      const store = await openState({ dir, log, disk });
      const lengths = [disk.content(`${dir}/journal`)?.length ?? 0];
      for (const changes of commits) {
        await store.commit(...changes);
        lengths.push(disk.content(`${dir}/journal`)?.length ?? 0);
      }
      const journal = disk.content(`${dir}/journal`) ?? Buffer.alloc(0);
      const states = history(commits);
      for (let length = lengths[0] ?? 0; length <= journal.length; length += 1) {
        disk.place(`${dir}/journal`, journal.subarray(0, length));
        const whole = lengths.filter((end) => end <= length).length - 1;
        const recovered = await openState({ dir, log, disk });
        assert.deepEqual(plain(recovered.state), states[whole]);
        assert.equal(disk.content(`${dir}/journal`)?.length, lengths[whole], "the torn rest is gone");
      }
    }),
    { numRuns: 15 },
  );
});

test("whenever the power fails, exactly a prefix of the commits is back, with all that were acknowledged", async () => {
  await fc.assert(
    fc.asyncProperty(
      life,
      fc.nat(90),
      fc.infiniteStream(fc.nat(1_000_000)),
      async (steps, powerLossAt, dice) => {
        const disk = new MemoryDisk();
        disk.powerLossAt = powerLossAt + 1;
        const commits: Change[][] = [];
        let acknowledged = 0;
        const foldAfter = { bytes: 1024 * 1024, lines: 3 };
        try {
          let store = await openState({ dir, log, disk, foldAfter });
          for (const step of steps) {
            if (step === "reopen") {
              await store.close();
              store = await openState({ dir, log, disk, foldAfter });
              continue;
            }
            commits.push(...step);
            await Promise.all(
              step.map(async (changes) => {
                await store.commit(...changes);
                acknowledged += 1;
              }),
            );
          }
        } catch {
          // The power is gone; what counts is what is back afterwards.
        }
        const roll = (n: number): number => (dice.next().value ?? 0) % (n + 1);
        const after = disk.afterPowerLoss(roll);
        const recovered = await openState({ dir, log, disk: after, foldAfter });
        const state = JSON.stringify(plain(recovered.state));
        const possible = history(commits)
          .slice(acknowledged)
          .map((each) => JSON.stringify(each));
        assert.ok(
          possible.includes(state),
          `${acknowledged} acknowledged of ${commits.length}; got ${state}`,
        );
        // And it goes on from there.
        await recovered.commit(putOperation("z"));
        await recovered.close();
        assert.ok((await openState({ dir, log, disk: after })).state.operations.has("z"));
      },
    ),
    { numRuns: 400 },
  );
});
