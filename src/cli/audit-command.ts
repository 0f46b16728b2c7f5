import type { Command } from "commander";
import type { Audit, RepairedItem } from "../contract/audit.ts";
import { type CliContext, toJson } from "./context.ts";
import { EXIT } from "./io.ts";
import { table } from "./table.ts";

/** Adds `audit`, whose exit code tells whether everything is as it should be. */
export function addAuditCommand(
  program: Command,
  context: CliContext,
  setExitCode: (code: number) => void,
): void {
  program
    .command("audit")
    .description("show what on the host is not as it should be; ends with 1 if anything is")
    .option("--all", "show what is as it should be, too")
    .option("--repair", "mend it first, around machines that run")
    .action(({ all = false, repair = false }: { all?: boolean; repair?: boolean }) =>
      context.withClient(async (client) => {
        const answer = repair ? await client.repair() : { repaired: [], audit: await client.audit() };
        const { audit, repaired } = answer;
        if (context.json()) context.io.out(toJson(repair ? answer : audit));
        else context.io.out([...repairedText(repaired), auditText(audit, all)].join("\n"));
        if (!audit.clean) setExitCode(EXIT.failed);
      }),
    );
}

function repairedText(repaired: readonly RepairedItem[]): string[] {
  if (repaired.length === 0) return [];
  const rows = repaired.map(({ resource, name, action, ok, reason }) => [
    ok ? "mended" : "not mended",
    resource,
    name,
    reason === undefined ? action : `${action}: ${reason}`,
  ]);
  return [table(["REPAIR", "WHAT", "NAME", "HOW"], rows), ""];
}

function auditText({ items, clean }: Audit, all: boolean): string {
  const shown = all ? items : items.filter(({ status }) => status !== "ok");
  const count =
    items.length === 1
      ? "1 thing on the host is this daemon's"
      : `${items.length} things on the host are this daemon's`;
  if (shown.length === 0) return `${count}, and as it should be`;
  const rows = shown.map(({ resource, name, owner = "", status, detail = "" }) => [
    status,
    resource,
    name,
    owner,
    detail,
  ]);
  const end = clean ? "all as it should be" : "not all as it should be";
  return `${table(["STATUS", "WHAT", "NAME", "OWNER", "DETAIL"], rows)}\n\n${count}, ${end}`;
}
