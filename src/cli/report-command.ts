import type { Command } from "commander";
import type { StorageReport } from "../contract/storage.ts";
import { type CliContext, toJson } from "./context.ts";
import { formatBytes } from "./sizes.ts";
import { facts, table } from "./table.ts";

type Stored = Pick<StorageReport["images"], "used_bytes" | "apparent_bytes">;

/** Adds `report`. */
export function addReportCommand(program: Command, context: CliContext): void {
  program
    .command("report")
    .description("show what disks, snapshots and images take up")
    .action(() =>
      context.withClient(async (client) => {
        const report = await client.storageReport();
        context.io.out(context.json() ? toJson(report) : reportText(report));
      }),
    );
}

function reportText({ root_dir, clone_mode, total_bytes, free_bytes, ...report }: StorageReport): string {
  const { images, machines, snapshots } = report;
  const row = (kind: string, id: string, { used_bytes, apparent_bytes }: Stored) => [
    kind,
    id,
    formatBytes(used_bytes),
    formatBytes(apparent_bytes),
  ];
  return [
    facts([
      ["root", root_dir],
      ["disk clones", clone_mode],
      ["free", `${formatBytes(free_bytes)} of ${formatBytes(total_bytes)}`],
    ]),
    "",
    table(
      ["KIND", "ID", "USED", "LENGTH"],
      [
        ...machines.map((machine) => row("machine", machine.id, machine)),
        ...snapshots.map((snapshot) => row("snapshot", snapshot.id, snapshot)),
        row("images", `${images.files} files`, images),
      ],
    ),
  ].join("\n");
}
