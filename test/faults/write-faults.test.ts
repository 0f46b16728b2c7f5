import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Answer } from "../support/request.ts";
import { makeTinyArtifact } from "../support/tiny-machine.ts";
import { Matrix, survey } from "./matrix.ts";
import { clear, type Scenario, scenarios, seen } from "./operations.ts";
import { drawnOfEach, seeded } from "./seed.ts";

/** FAULTS=full fails each effect with each code; otherwise some are drawn, by SEED. */
const DRAWN = drawnOfEach(2);
const CODES = ["ENOSPC", "EIO", "EDQUOT"] as const;
/** What failed and could not be undone is tried again; by then it is either done or undone. */
const SETTLED_MS = 40_000;
/** Errors of the contract that a host in trouble may answer. */
const IN_TROUBLE = [500, 502, 503, 504, 507];

interface Fault {
  readonly at: number;
  readonly fail: (typeof CODES)[number];
  /** It lasts until the answer, so that the undo meets it too. */
  readonly lasting: boolean;
}

/** Waits until clients see the operation as done or as undone, and nothing of it is under way. */
async function untilSettled({ world }: Matrix, { done, undone }: Scenario): Promise<string> {
  let now = "";
  for (const end = performance.now() + SETTLED_MS; performance.now() < end; ) {
    now = await seen(world);
    if (now === done || now === undone) return now;
    await sleep(100);
  }
  throw new Error(`neither done nor undone: ${now}`);
}

/** Has one effect of the operation fail, and judges what the client is told and what is left. */
async function failAt(matrix: Matrix, scenario: Scenario, fault: Fault): Promise<Answer> {
  const { world } = matrix;
  await scenario.before(world);
  await matrix.arm(fault);
  const answer = await scenario.run(world);
  await matrix.arm({}, { settled: false });
  if (answer.status >= 300) {
    assert.ok(IN_TROUBLE.includes(answer.status), JSON.stringify(answer));
    assert.equal(typeof answer.body.code, "string");
    assert.notEqual(answer.body.error, "");
  }
  const now = await untilSettled(matrix, scenario);
  if (answer.status < 300) assert.equal(now, scenario.done, "what was acknowledged is lost");
  await world.assertMatchesState();
  return answer;
}

test("writes fail at the boundaries of the operations' side effects, and the host is as the state says", async (t) => {
  using artifact = await makeTinyArtifact();
  await using matrix = await Matrix.make(
    { ...artifact.body, track_dirty_pages: true },
    { ...artifact.env, FIRECRACKER_HOST_RECONCILE_INTERVAL: "3s" },
  );
  const random = seeded(t);
  const answers = new Map<number, number>();
  try {
    for (const [name, scenario] of Object.entries(scenarios(artifact.body))) {
      await t.test(name, async (inner: TestContext) => {
        const effects = await survey(matrix, scenario);
        const all = effects.flatMap((effect, index): Fault[] =>
          /^(kill|vmm) /.test(effect)
            ? []
            : CODES.flatMap((fail) => [false, true].map((lasting) => ({ at: index + 1, fail, lasting }))),
        );
        const chosen = random.draw(all, DRAWN);
        for (const fault of chosen) {
          const where = `${fault.fail} ${fault.lasting ? "from" : "at"} ${fault.at} of ${effects.length}: ${effects[fault.at - 1]}`;
          try {
            const { status } = await failAt(matrix, scenario, fault);
            answers.set(status, (answers.get(status) ?? 0) + 1);
          } catch (error) {
            process.stderr.write(`${matrix.world.log.slice(-6000)}\n`);
            throw new Error(where, { cause: error });
          }
        }
        inner.diagnostic(`${effects.length} effects, ${chosen.length} faults`);
      });
    }
    t.diagnostic(`answers: ${[...answers].map(([status, times]) => `${times} times ${status}`).join(", ")}`);
    await matrix.world.endDaemon("SIGKILL");
    await matrix.world.startDaemon();
    await clear(matrix.world);
    await matrix.world.assertLeavesNothing();
  } catch (error) {
    matrix.world.fail();
    throw error;
  }
});
