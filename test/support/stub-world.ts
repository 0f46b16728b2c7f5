import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { stubPair } from "./stub-vmm/build.ts";
import { makeTinyArtifact, type TinyArtifact } from "./tiny-machine.ts";
import { World } from "./world.ts";

/**
 * Runs `work` on a daemon whose VMMs are stubs, so that machines are there at once, and ends it with the oracle.
 * What a create needs beside its id is the artifact's `body`. The patrol stands still unless `env` says otherwise, so that
 * the state changes by requests alone. `vmm` makes another VMM than the stub in a folder of the test and returns its path.
 */
export async function inStubWorld(
  work: (world: World, artifact: TinyArtifact) => Promise<void>,
  options: {
    readonly env?: Readonly<Record<string, string>>;
    readonly vmm?: (folder: string) => Promise<string>;
  } = {},
): Promise<void> {
  using artifact = await makeTinyArtifact();
  await using undo = new AsyncDisposableStack();
  const folder = mkdtempSync("/var/tmp/ch-stubs-");
  undo.defer(() => rmSync(folder, { recursive: true, force: true }));
  const stubs = await stubPair(folder);
  const world = undo.use(
    await World.make({
      env: {
        ...artifact.env,
        // A create that names no artifact is refused, whatever images this host has.
        FIRECRACKER_HOST_DEFAULT_IMAGE: "none",
        FIRECRACKER_HOST_RECONCILE_INTERVAL: "1h",
        // A stub answers no SSH: who asks for it learns so soon.
        FIRECRACKER_HOST_READY_TIMEOUT: "300ms",
        ...options.env,
        FIRECRACKER_BINARY_PATH: (await options.vmm?.(folder)) ?? stubs.firecrackerPath,
        JAILER_BINARY_PATH: stubs.jailerPath,
      },
    }),
  );
  try {
    await work(world, artifact);
    await world.assertLeavesNothing();
  } catch (error) {
    world.fail();
    process.stderr.write(`== daemon\n${world.log.slice(-4000)}\n`);
    throw error;
  }
}

/** SHA-256 of the state and its journal as they lie on the disk. */
export function stateDigest({ rootDir }: World): string {
  const hash = createHash("sha256");
  for (const name of ["state.json", "journal"]) hash.update(readFileSync(join(rootDir, "state", name)));
  return hash.digest("hex");
}
