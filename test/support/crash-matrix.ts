import assert from "node:assert/strict";
import { test } from "node:test";
import { machineId } from "../../src/contract/ids.ts";
import type { Host } from "../../src/host/host.ts";
import { type FakeHost, makeFakeHost } from "./fake-host.ts";
import { assertMatches, restarted, Trouble } from "./host-trouble.ts";

/** One operation on a daemon that has a running machine `one`, which tracks its dirty pages, and a snapshot `s1` of it. */
export interface Scenario {
  /** What was done to the machine before the daemon started that gets into trouble. */
  readonly before?: (host: Host, fakes: FakeHost) => Promise<unknown>;
  readonly run: (host: Host) => Promise<unknown>;
  readonly ends: (fakes: FakeHost) => unknown;
  /** What starts find: the operation done, or as if it had never been. One that only goes forward is always done. */
  readonly found: readonly [done: unknown, undone?: unknown];
}

/** A daemon with a running machine and a snapshot of it, that has just started, with trouble ahead. */
async function begin(trouble: Trouble, at: number, before: Scenario["before"]): Promise<FakeHost> {
  const first = await makeFakeHost();
  await first.host.create({ machine_id: "one", track_dirty_pages: true }, first.trace());
  await first.host.snapshot(machineId("one"), { snapshot_id: "s1" }, first.trace());
  await before?.(first.host, first);
  await first.host.close();
  const second = await restarted(first, trouble);
  trouble.arm(at);
  return second;
}

const textOf = (value: unknown): string => JSON.stringify(value);

/** Tests for each scenario: the daemon is killed after each call of a room in turn, and each call in turn fails. */
export function crashMatrix(scenarios: Readonly<Record<string, Scenario>>): void {
  for (const [name, { before, run, ends, found }] of Object.entries(scenarios)) {
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
}
