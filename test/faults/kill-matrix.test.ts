import { test, type TestContext } from "node:test";
import assert from "node:assert/strict";
import { makeTinyArtifact } from "../support/tiny-machine.ts";
import { Matrix, survey } from "./matrix.ts";
import { clear, type Scenario, scenarios, seen } from "./operations.ts";
import { drawnOfEach, seeded } from "./seed.ts";

/** FAULTS=full kills at each boundary; otherwise some are drawn, by SEED. */
const DRAWN = drawnOfEach(3);

interface Boundary {
  readonly at: number;
  readonly phase: "before" | "after";
}

/** Kills the daemon at the boundary, and again in its recovery where `again` says at which effect of it. Judges what is left. */
async function killAt(
  matrix: Matrix,
  scenario: Scenario,
  boundary: Boundary,
  again: number | undefined,
): Promise<boolean> {
  const { world } = matrix;
  await scenario.before(world);
  await matrix.arm(boundary);
  const answer = await scenario.run(world).catch(() => undefined);
  const died = await world.waitDaemonDead(answer === undefined ? 10_000 : 300);
  if (!died) await world.endDaemon("SIGKILL");
  if (again !== undefined) {
    matrix.plan({ at: again, phase: boundary.phase, from: "start" });
    await world.startDaemon().catch(() => undefined);
    await world.endDaemon("SIGKILL");
  }
  matrix.plan({});
  await world.startDaemon();
  const now = await seen(world);
  if (answer === undefined) assert.ok([scenario.done, scenario.undone].includes(now), now);
  else assert.equal(now, scenario.done, "what was acknowledged is lost");
  await world.assertMatchesState();
  return died;
}

test("the daemon is killed at the boundaries of its operations' side effects, and again while it recovers", async (t) => {
  using artifact = await makeTinyArtifact();
  await using matrix = await Matrix.make({ ...artifact.body, track_dirty_pages: true }, artifact.env);
  const random = seeded(t);
  let kills = 0;
  try {
    for (const [name, scenario] of Object.entries(scenarios(artifact.body))) {
      await t.test(name, async (inner: TestContext) => {
        const effects = await survey(matrix, scenario);
        const all = effects.flatMap((_, index): Boundary[] => [
          { at: index + 1, phase: "before" },
          { at: index + 1, phase: "after" },
        ]);
        const chosen = random.draw(all, DRAWN);
        for (const boundary of chosen) {
          const again = random.below(3) === 0 ? 1 + random.below(12) : undefined;
          const where = `${boundary.phase} ${boundary.at} of ${effects.length}: ${effects[boundary.at - 1]}${again === undefined ? "" : `, again at ${again}`}`;
          try {
            if (await killAt(matrix, scenario, boundary, again)) kills += 1;
          } catch (error) {
            throw new Error(`killed ${where}`, { cause: error });
          }
        }
        inner.diagnostic(`${effects.length} effects, ${chosen.length} boundaries tried`);
      });
    }
    t.diagnostic(`${kills} kills`);
    await clear(matrix.world);
    await matrix.world.assertLeavesNothing();
  } catch (error) {
    matrix.world.fail();
    throw error;
  }
});
