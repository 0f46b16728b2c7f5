import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "../../src/system/run.ts";
import { stubPair } from "../support/stub-vmm/build.ts";
import { World } from "../support/world.ts";
import { seen, type Scenario } from "./operations.ts";

const NODE = process.execPath;
const REPOSITORY = join(import.meta.dirname, "../..");

/** A world whose daemon can be told at which effect a fault befalls it, and how to tell it. */
export class Matrix implements AsyncDisposable {
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
  async arm(plan: object, { settled = true } = {}): Promise<void> {
    // What earlier requests left to be done behind their answers is not this operation's.
    if (settled) await this.world.assertMatchesState();
    this.plan(plan);
    process.kill(this.world.daemonPid, "SIGUSR2");
    await sleep(30);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

/** Runs the scenario to its end and returns its effects. What comes right behind the answer counts, too: the pool's refill. */
export async function survey(matrix: Matrix, scenario: Scenario): Promise<readonly string[]> {
  await scenario.before(matrix.world);
  await matrix.arm({});
  const answer = await scenario.run(matrix.world);
  assert.ok(answer.status < 300, JSON.stringify(answer.body));
  await matrix.world.assertMatchesState();
  assert.equal(await seen(matrix.world), scenario.done);
  return matrix.effects;
}
