import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "../src/system/run.ts";
import { realPair } from "../test/support/real-run/pair.ts";
import { request } from "../test/support/request.ts";
import { stubPair } from "../test/support/stub-vmm/build.ts";
import { makeTinyArtifact, type TinyArtifact } from "../test/support/tiny-machine.ts";
import { World } from "../test/support/world.ts";

const REPOSITORY = join(import.meta.dirname, "..");
/** Room for a thousand machines and what a bench adds. */
const POOL = "10.192.0.0/19";
/** Each daemon has a range of its own, so that benches and tests can run beside each other. */
const FIRST_UID = 2_000_000;
const UIDS = 8192;
const POLL_MS = 1;
const START_LIMIT_MS = 120_000;

/** What all benches share: the tiny guest, the VMM under the daemon, and the bundled daemon. */
export interface Stage extends AsyncDisposable {
  readonly artifact: TinyArtifact;
  /** "real" where FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH name a pair, else "stub". */
  readonly vmm: string;
  /** A daemon in a network of its own, or in that of another. */
  world(beside?: World): Promise<World>;
}

export async function makeStage(): Promise<Stage> {
  await using undo = new AsyncDisposableStack();
  await run([join(REPOSITORY, "scripts/build.sh")], { timeoutMs: 120_000 });
  const artifact = undo.use(await makeTinyArtifact());
  const pair = realPair();
  const stubs = pair === undefined ? await stubPair(artifact.dir) : undefined;
  const kept = undo.move();
  return {
    artifact,
    vmm: pair === undefined ? "stub" : "real",
    world: (beside) =>
      World.make({
        program: [process.execPath, join(REPOSITORY, "dist/computer-host.mjs")],
        ...(beside === undefined ? {} : { beside }),
        env: {
          ...artifact.env,
          ...(stubs === undefined
            ? {}
            : { FIRECRACKER_BINARY_PATH: stubs.firecrackerPath, JAILER_BINARY_PATH: stubs.jailerPath }),
          FIRECRACKER_HOST_NETWORK_CIDR: beside === undefined ? POOL : "10.224.0.0/19",
          FIRECRACKER_HOST_UID_BASE: String(FIRST_UID + randomInt(1000) * UIDS),
        },
      }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** Makes machines `<prefix>0` and on, a few at a time. */
export async function populate(stage: Stage, world: World, prefix: string, count: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const machine_id = `${prefix}${next}`;
      next += 1;
      await world.create(machine_id, stage.artifact.body);
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}

/** The milliseconds from starting a program to the first answer on its socket; it is ended afterwards. */
export async function timeToSocket(argv: readonly [string, ...string[]], socket: string): Promise<number> {
  const began = performance.now();
  const child = spawn(argv[0], argv.slice(1), { stdio: "ignore" });
  try {
    await untilAnswers(socket, "/", child);
    return performance.now() - began;
  } finally {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }
}

export async function untilAnswers(socket: string, path: string, child?: ChildProcess): Promise<void> {
  for (const end = performance.now() + START_LIMIT_MS; performance.now() < end; ) {
    if ((await request(socket, "GET", path).catch(() => undefined)) !== undefined) return;
    if (child !== undefined && child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
    await sleep(POLL_MS);
  }
  throw new Error(`nothing answers on ${socket}`);
}
