import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { run } from "../../src/system/run.ts";
import type { Answer } from "../support/request.ts";
import { stubPair } from "../support/stub-vmm/build.ts";
import { makeTinyArtifact } from "../support/tiny-machine.ts";
import { World } from "../support/world.ts";
import { seeded } from "./seed.ts";

const NODE = process.execPath;
const REPOSITORY = join(import.meta.dirname, "../..");
/** FAULTS=full kills at each boundary; otherwise some are drawn, by SEED. */
const FULL = process.env["FAULTS"] === "full";
const DRAWN_OF_EACH = 3;

/** An operation, and what may be found after the daemon was killed in it: done or undone, as text. */
interface Scenario {
  /** Brings the host to where the operation begins, whatever an earlier kill left. */
  readonly before: (world: World) => Promise<unknown>;
  readonly run: (world: World) => Promise<Answer>;
  readonly done: string;
  /** Undefined of one that only goes forward once it has begun; it may still not have begun. */
  readonly undone: string;
}

const started = { ready: "started" } as const;

async function clear(world: World): Promise<void> {
  for (const { id } of (await world.get("/machines")).body.machines as Machine[]) {
    if (id === "one") continue;
    assert.equal((await world.delete(`/machines/${id}`)).status, 204);
  }
  assert.equal((await world.delete("/snapshots/new")).status, 204);
}

/** Everything that clients can see of machines and snapshots, as one line. */
async function seen(world: World): Promise<string> {
  const machines = (await world.get("/machines")).body.machines as Machine[];
  const snapshots = (await world.get("/machines/one/snapshots")).body;
  return [
    ...machines.map(({ id, phase, paused }) => `${id} ${phase}${paused === true ? " paused" : ""}`).sort(),
    ...(snapshots.snapshots ?? []).map(({ id }: { id: string }) => `snapshot ${id}`).sort(),
  ].join(", ");
}

async function running(world: World): Promise<void> {
  await clear(world);
  await world.post("/machines/one/start");
  assert.equal((await world.post("/machines/one/resume")).status, 200);
}

async function stopped(world: World): Promise<void> {
  await clear(world);
  assert.equal((await world.post("/machines/one/stop")).status, 204);
}

function scenarios(body: object): Readonly<Record<string, Scenario>> {
  return {
    create: {
      before: running,
      run: (world) => world.post("/machines", { machine_id: "new", ...body }),
      done: "new running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    stop: {
      before: running,
      run: (world) => world.post("/machines/one/stop"),
      done: "one stopped, snapshot s",
      undone: "one running, snapshot s",
    },
    start: {
      before: stopped,
      run: (world) => world.post("/machines/one/start"),
      done: "one running, snapshot s",
      undone: "one stopped, snapshot s",
    },
    pause: {
      before: running,
      run: (world) => world.post("/machines/one/pause"),
      done: "one running paused, snapshot s",
      undone: "one running, snapshot s",
    },
    delete: {
      before: async (world) => {
        await running(world);
        await world.post("/machines", { machine_id: "new", ...body });
      },
      run: (world) => world.delete("/machines/new"),
      done: "one running, snapshot s",
      undone: "new running, one running, snapshot s",
    },
    "disk snapshot": {
      before: running,
      run: (world) => world.post("/machines/one/snapshots", { snapshot_id: "new" }),
      done: "one running, snapshot new, snapshot s",
      undone: "one running, snapshot s",
    },
    "memory snapshot": {
      before: running,
      run: (world) => world.post("/machines/one/snapshots", { snapshot_id: "new", memory: true }),
      done: "one running, snapshot new, snapshot s",
      undone: "one running, snapshot s",
    },
    "delete of a snapshot": {
      before: async (world) => {
        await running(world);
        await world.post("/machines/one/snapshots", { snapshot_id: "new" });
      },
      run: (world) => world.delete("/snapshots/new"),
      done: "one running, snapshot s",
      undone: "one running, snapshot new, snapshot s",
    },
    "live restore": {
      before: running,
      run: (world) => world.post("/snapshots/s/restore", { machine_id: "new", ...started }),
      done: "new running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    "restore from disk": {
      before: running,
      run: (world) => world.post("/snapshots/s/restore", { machine_id: "new", memory: false, ...started }),
      done: "new running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    fork: {
      before: running,
      run: (world) => world.post("/machines/one/fork", { count: 2, id_prefix: "new-", ...started }),
      done: "new-1 running, new-2 running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    resize: {
      before: stopped,
      run: (world) => world.post("/machines/one/resize", { memory_mib: 64 + Math.floor(Math.random() * 8) }),
      done: "one stopped, snapshot s",
      undone: "one stopped, snapshot s",
    },
  };
}

/** A world whose daemon can be told where to die, and how to tell it. */
class Matrix implements AsyncDisposable {
  readonly world: World;
  readonly #folder: string;
  readonly #undo: AsyncDisposableStack;

  private constructor(world: World, folder: string, undo: AsyncDisposableStack) {
    this.world = world;
    this.#folder = folder;
    this.#undo = undo;
  }

  static async make(body: object, env: Readonly<Record<string, string>>): Promise<Matrix> {
    await using undo = new AsyncDisposableStack();
    await run([join(REPOSITORY, "scripts/build.sh")], { timeoutMs: 120_000 });
    const folder = mkdtempSync("/var/tmp/ch-faults-");
    undo.defer(() => rmSync(folder, { recursive: true, force: true }));
    const stubs = await stubPair(folder);
    writeFileSync(join(folder, "plan"), "{}");
    const failpoints = join(import.meta.dirname, "failpoints.ts");
    const world = undo.use(
      await World.make({
        program: [NODE, "--import", failpoints, join(REPOSITORY, "dist/computer-host.mjs")],
        env: {
          ...env,
          FIRECRACKER_BINARY_PATH: stubs.firecrackerPath,
          JAILER_BINARY_PATH: stubs.jailerPath,
          FAULTS: join(folder, "plan"),
          FAULTS_LOG: join(folder, "effects"),
        },
      }),
    );
    await world.create("one", body as Record<string, unknown>);
    const taken = await world.post("/machines/one/snapshots", { snapshot_id: "s", memory: true });
    assert.equal(taken.status, 201, JSON.stringify(taken.body));
    return new Matrix(world, folder, undo.move());
  }

  /** The effects that were counted since the last plan, in order. */
  get effects(): string[] {
    const text = readFileSync(join(this.#folder, "effects"), "utf8").trim();
    return text === "" ? [] : text.split("\n").map((line) => line.replace(/^\d+ /, ""));
  }

  plan(plan: object): void {
    writeFileSync(join(this.#folder, "plan"), JSON.stringify(plan));
    writeFileSync(join(this.#folder, "effects"), "");
  }

  /** The daemon counts from now on. */
  async arm(plan: object): Promise<void> {
    // What earlier requests left to be done behind their answers is not this operation's.
    await this.world.assertMatchesState();
    this.plan(plan);
    process.kill(this.world.daemonPid, "SIGUSR2");
    await sleep(30);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

/** Runs the scenario to its end and returns its effects. What comes right behind the answer counts, too: the pool's refill. */
async function survey(matrix: Matrix, scenario: Scenario): Promise<readonly string[]> {
  await scenario.before(matrix.world);
  await matrix.arm({});
  const answer = await scenario.run(matrix.world);
  assert.ok(answer.status < 300, JSON.stringify(answer.body));
  await matrix.world.assertMatchesState();
  assert.equal(await seen(matrix.world), scenario.done);
  return matrix.effects;
}

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
        const chosen = FULL ? all : random.draw(all, DRAWN_OF_EACH);
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
