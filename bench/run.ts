/**
 * Runs the benches, prints their table and writes it with a plot.
 *
 * Usage: run.ts [--samples N] [--many N] [--out FOLDER] [NAME...]
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BENCHES } from "./benches.ts";
import type { Comparison } from "./measure.ts";
import { table, write } from "./report.ts";
import { makeStage } from "./stage.ts";

const { values, positionals } = parseArgs({
  options: {
    samples: { type: "string", default: "30" },
    many: { type: "string", default: "200" },
    out: { type: "string", default: join(import.meta.dirname, "results") },
  },
  allowPositionals: true,
});
const size = { samples: Number(values.samples), many: Number(values.many) };
const unknown = positionals.filter((name) => !(name in BENCHES));
if (unknown.length > 0 || !(size.samples > 0) || !(size.many > 0)) {
  process.stderr.write(
    `usage: run.ts [--samples N] [--many N] [--out FOLDER] [${Object.keys(BENCHES).join("|")}]\n`,
  );
  process.exit(2);
}
if (process.getuid?.() !== 0) {
  process.stderr.write("the benches need root: use sudo make bench\n");
  process.exit(1);
}
await using stage = await makeStage();
const results: Comparison[] = [];
for (const [name, bench] of Object.entries(BENCHES)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  process.stderr.write(`${name} …\n`);
  results.push(...(await bench(stage, size)));
}
process.stdout.write(table(results));
await write(values.out, results);
