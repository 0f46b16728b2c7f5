import { type Command, InvalidArgumentError } from "commander";
import { createHash, randomBytes } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import type { ArtifactBytes } from "../client/client.ts";
import type { Uploaded, UploadSnapshot } from "../contract/snapshot.ts";
import { type CliContext, toJson } from "./context.ts";
import { formatBytes } from "./sizes.ts";
import { table } from "./table.ts";

/** Adds `download` and `upload`. */
export function addTransferCommands(program: Command, context: CliContext): void {
  program
    .command("download")
    .description("write one file of a snapshot to a file here, checked by its size and SHA-256")
    .argument("<snapshot>", "id of the snapshot")
    .argument("<artifact>", "id of the artifact, as get-snapshot --json shows it")
    .argument("<file>", "where to write it; replaced when it is there")
    .action((snapshotId: string, artifactId: string, path: string) =>
      context.withClient(async (client) => {
        const artifact = await client.openArtifact(snapshotId, artifactId);
        await save(artifact, path);
        const { size_bytes, sha256_hex } = artifact;
        context.io.out(
          context.json()
            ? toJson({ path, size_bytes, sha256_hex })
            : `${path}: ${formatBytes(size_bytes)}, sha256 ${sha256_hex}`,
        );
      }),
    );

  program
    .command("upload")
    .description("have the daemon send files of a snapshot to a store, and print what it took")
    .argument("<snapshot>", "id of the snapshot")
    .argument("<plan>", "file with the plan as the API takes it: {artifacts: […]} with an URL for each part")
    .action((id: string, planPath: string) =>
      context.withClient(async (client) => {
        const uploaded = await client.uploadSnapshot(id, await readPlan(planPath));
        context.io.out(context.json() ? toJson(uploaded) : uploadedTable(uploaded));
      }),
    );
}

/**
 * Writes the bytes beside `path` and puts them in place when they are all there and right. For its owner alone: memory
 * and disk of a guest hold its secrets. Rejects, and leaves nothing, otherwise.
 */
async function save({ bytes, size_bytes, sha256_hex }: ArtifactBytes, path: string): Promise<void> {
  const temporary = `${path}.${randomBytes(4).toString("hex")}.part`;
  const file = await open(temporary, "wx", 0o600);
  try {
    const hash = createHash("sha256");
    let size = 0;
    for await (const chunk of bytes) {
      hash.update(chunk);
      size += chunk.byteLength;
      await file.writeFile(chunk);
    }
    if (size !== size_bytes) throw new Error(`${size} bytes came where ${size_bytes} were promised`);
    if (hash.digest("hex") !== sha256_hex) {
      throw new Error(`the bytes that came are not those with the SHA-256 ${sha256_hex}`);
    }
    await file.sync();
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** What the plan holds is for the daemon to judge. */
async function readPlan(path: string): Promise<UploadSnapshot> {
  const text = await readFile(path, "utf8");
  try {
    return JSON.parse(text) as UploadSnapshot;
  } catch (error) {
    throw new InvalidArgumentError(
      `error: ${path} is not JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function uploadedTable({ artifacts }: Uploaded): string {
  return table(
    ["ARTIFACT", "PART", "ETAG"],
    artifacts.flatMap(({ artifact_id, completed_parts }) =>
      completed_parts.map(({ part_number, etag }) => [artifact_id, String(part_number), etag]),
    ),
  );
}
