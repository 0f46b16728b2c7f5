import type { Command } from "commander";
import type { Snapshot } from "../contract/snapshot.ts";
import { addGuestOptions, type GuestOptions, guestBody } from "./guest-options.ts";
import { type CliContext, printMade, toJson } from "./machine-commands.ts";
import { formatBytes } from "./sizes.ts";
import { facts, table } from "./table.ts";

/** Adds `snapshot`, `snapshots`, `get-snapshot`, `delete-snapshot` and `restore`. */
export function addSnapshotCommands(program: Command, context: CliContext): void {
  program
    .command("snapshot")
    .description("take a snapshot of a machine's disk")
    .argument("<machine>", "id of the machine")
    .argument("<snapshot>", "id of the new snapshot")
    .action((machineId: string, snapshot_id: string) =>
      context.withClient(async (client) => {
        const answer = await client.createSnapshot(machineId, { snapshot_id });
        context.io.out(context.json() ? toJson(answer) : snapshotFacts(answer.snapshot));
      }),
    );

  program
    .command("snapshots")
    .description("list the snapshots of a machine")
    .argument("<machine>", "id of the machine")
    .action((machineId: string) =>
      context.withClient(async (client) => {
        const snapshots = await client.listSnapshots(machineId);
        context.io.out(context.json() ? toJson({ snapshots }) : snapshotTable(snapshots));
      }),
    );

  program
    .command("get-snapshot")
    .description("show one snapshot")
    .argument("<snapshot>", "id of the snapshot")
    .action((id: string) =>
      context.withClient(async (client) => {
        const snapshot = await client.getSnapshot(id);
        context.io.out(context.json() ? toJson({ snapshot }) : snapshotFacts(snapshot));
      }),
    );

  program
    .command("delete-snapshot")
    .description("delete snapshots; machines made from them stay")
    .argument("<snapshot...>", "ids of the snapshots")
    .action((ids: readonly string[]) =>
      context.withClient(async (client) => {
        for (const id of ids) await client.deleteSnapshot(id);
      }),
    );

  addGuestOptions(
    program
      .command("restore")
      .argument("<snapshot>", "id of the snapshot")
      .argument("<machine>", "id of the new machine"),
  )
    .description("make a new machine from a snapshot, with an identity of its own")
    .action((snapshotId: string, machine_id: string, options: GuestOptions) =>
      context.withClient(async (client) => {
        const body = { machine_id, ...(await guestBody(options)) };
        printMade(context, await client.restoreSnapshot(snapshotId, body));
      }),
    );
}

function snapshotTable(snapshots: readonly Snapshot[]): string {
  return table(
    ["ID", "MACHINE", "DISK", "CONSISTENCY", "CREATED"],
    snapshots.map((snapshot) => [
      snapshot.id,
      snapshot.machine_id,
      formatBytes(snapshot.size_bytes),
      snapshot.consistency,
      snapshot.created_at,
    ]),
  );
}

function snapshotFacts(snapshot: Snapshot): string {
  return facts([
    ["id", snapshot.id],
    ["machine", snapshot.machine_id],
    ["disk", formatBytes(snapshot.size_bytes)],
    ["consistency", snapshot.consistency],
    ["paused", `${Math.round(snapshot.paused_ms)} ms`],
    ["created", snapshot.created_at],
    ...snapshot.artifacts.map(
      ({ kind, name, size_bytes, sha256_hex }) =>
        [
          kind,
          `${name} (${formatBytes(size_bytes)}${sha256_hex === undefined ? "" : `, sha256 ${sha256_hex}`})`,
        ] as const,
    ),
  ]);
}
