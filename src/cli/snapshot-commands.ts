import { type Command, Option } from "commander";
import type { Compatibility, Snapshot } from "../contract/snapshot.ts";
import { type CliContext, toJson } from "./context.ts";
import {
  addGuestOptions,
  addSizeOptions,
  type GuestOptions,
  guestBody,
  type SizeOptions,
  sizeBody,
} from "./guest-options.ts";
import { printMade } from "./machine-text.ts";
import { formatBytes } from "./sizes.ts";
import { facts, table } from "./table.ts";

/** Adds `snapshot`, `snapshots`, `get-snapshot`, `delete-snapshot`, `compatibility` and `restore`. */
export function addSnapshotCommands(program: Command, context: CliContext): void {
  program
    .command("snapshot")
    .description("take a snapshot of a machine's disk and, if asked to, its memory")
    .argument("<machine>", "id of the machine")
    .argument("<snapshot>", "id of the new snapshot")
    .addOption(
      new Option(
        "--memory [kind]",
        "with the memory: full, or diff (what changed since the last one with memory; needs --track-dirty-pages at the create)",
      ).choices(["full", "diff"]),
    )
    .action((machineId: string, snapshot_id: string, { memory }: { memory?: true | "full" | "diff" }) =>
      context.withClient(async (client) => {
        const body = { snapshot_id, ...(memory === undefined ? {} : { memory }) };
        const answer = await client.createSnapshot(machineId, body);
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

  program
    .command("compatibility")
    .description("say whether a snapshot can be restored here: live, from its disk or not at all, and why")
    .argument("<snapshot>", "id of the snapshot")
    .action((id: string) =>
      context.withClient(async (client) => {
        const verdict = await client.compatibility(id);
        context.io.out(context.json() ? toJson(verdict) : verdictFacts(verdict));
      }),
    );

  const restore = program
    .command("restore")
    .description(
      "make a new machine from a snapshot, with an identity of its own; one with memory goes on where it stood",
    )
    .argument("<snapshot>", "id of the snapshot")
    .argument("<machine>", "id of the new machine");
  addGuestOptions(addSizeOptions(restore))
    .addOption(new NoMemoryOption("--no-memory", "boot from the disk, also where there is a memory"))
    .action((snapshotId: string, machine_id: string, options: RestoreOptions) =>
      context.withClient(async (client) => {
        const body = {
          machine_id,
          ...sizeBody(options),
          ...(await guestBody(options)),
          ...(options.live === false ? { memory: false } : {}),
        };
        printMade(context, await client.restoreSnapshot(snapshotId, body));
      }),
    );
}

type RestoreOptions = SizeOptions & GuestOptions & { readonly live?: false };

/** Not the opposite of `--memory <size>`: who boots from the disk may choose a size. */
class NoMemoryOption extends Option {
  override attributeName(): string {
    return "live";
  }
}

function verdictFacts({ snapshot_id, restorable, reasons }: Compatibility): string {
  return facts([
    ["snapshot", snapshot_id],
    ["restorable", restorable],
    ...reasons.map(({ code, text, prevents }) => [`not ${prevents}`, `${text} (${code})`] as const),
  ]);
}

function snapshotTable(snapshots: readonly Snapshot[]): string {
  return table(
    ["ID", "MACHINE", "DISK", "MEMORY", "CONSISTENCY", "CREATED"],
    snapshots.map((snapshot) => [
      snapshot.id,
      snapshot.machine_id,
      formatBytes(snapshot.size_bytes),
      snapshot.memory,
      snapshot.consistency,
      snapshot.created_at,
    ]),
  );
}

function snapshotFacts(snapshot: Snapshot): string {
  return facts([
    ["id", snapshot.id],
    ["machine", snapshot.machine_id],
    ["disk size", formatBytes(snapshot.size_bytes)],
    ["size", `${snapshot.vcpus} vCPU, ${snapshot.memory_mib} MiB`],
    ["memory kept", snapshot.memory],
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
