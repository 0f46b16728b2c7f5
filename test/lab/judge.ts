/**
 * The oracle's word about the host that it runs on, for the lab: prints each difference between what exists and what
 * the state of the daemon on the given root says, and nothing when there is none.
 */
import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { compareWithState, expectedFromFiles, explain, settle, takeInventory } from "../oracle.ts";

const [root = "/var/lib/computer-host", poolSize = "8"] = process.argv.slice(2);
const rootDir = realpathSync(root);
const scope = { rootDir, tag: createHash("sha256").update(rootDir).digest("hex").slice(0, 6) };
const differences = await settle(
  async () =>
    compareWithState(
      await takeInventory(scope),
      await expectedFromFiles(scope, { daemonRuns: true, poolSize: Number(poolSize) }),
    ),
  20_000,
);
process.stdout.write(explain(differences));
