import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { type Comparison, ratio, summary } from "./measure.ts";

/** What machine the figures are of. */
export function describeMachine(): Readonly<Record<string, string>> {
  const os = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "unknown";
  return {
    processor: `${cpus()[0]?.model ?? "unknown"}, ${cpus().length} cores`,
    memory: `${Math.round(totalmem() / 1024 ** 3)} GiB`,
    system: `${os}, Linux ${release()}`,
    node: process.version,
    commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], {
      cwd: import.meta.dirname,
      encoding: "utf8",
    }).trim(),
  };
}

const ms = (value: number): string => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;

/** The comparisons as a Markdown table. */
export function table(comparisons: readonly Comparison[]): string {
  const rows = comparisons.map(({ name, vmm, goal, a, b }) => {
    const [ours, theirs] = [summary(a), summary(b)];
    const { ratio: of, low, high } = ratio(a, b);
    return `| ${name} | ${vmm} | ${a.length} | ${ms(ours.p50)} / ${ms(ours.p99)} | ${ms(theirs.p50)} / ${ms(theirs.p99)} | ${of.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)}) | ${goal} |`;
  });
  return [
    "| bench | VMM | samples | p50 / p99 | against, p50 / p99 | ratio of p50 (95 %) | goal |",
    "|---|---|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

const ROW = 34;
const LEFT = 250;
const WIDTH = 900;

/** Bars of the ratios with their intervals, and a mark at each goal, as an SVG. */
export function plot(comparisons: readonly Comparison[]): string {
  const rows = comparisons.map((each) => ({ ...each, ...ratio(each.a, each.b) }));
  const most = Math.max(2, ...rows.map(({ high, goal }) => Math.max(high, goal))) * 1.05;
  const x = (value: number): string => (LEFT + (value / most) * (WIDTH - LEFT - 20)).toFixed(1);
  const bars = rows.flatMap(({ name, vmm, goal, ratio: of, low, high }, index) => {
    const y = 30 + index * ROW;
    const colour = of <= goal ? "#2b8a3e" : "#c92a2a";
    return [
      `<text x="${LEFT - 8}" y="${y + 14}" text-anchor="end">${name} (${vmm})</text>`,
      `<rect x="${LEFT}" y="${y}" width="${(Number(x(of)) - LEFT).toFixed(1)}" height="18" fill="${colour}" opacity="0.75"/>`,
      `<line x1="${x(low)}" x2="${x(high)}" y1="${y + 9}" y2="${y + 9}" stroke="#000"/>`,
      `<line x1="${x(goal)}" x2="${x(goal)}" y1="${y - 3}" y2="${y + 21}" stroke="#1864ab" stroke-width="2"/>`,
      `<text x="${Number(x(high)) + 4}" y="${y + 14}">${of.toFixed(2)}</text>`,
    ];
  });
  const height = 40 + rows.length * ROW;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<text x="${LEFT}" y="18">ratio to the baseline (blue: goal)</text>`,
    ...bars,
    "</svg>",
    "",
  ].join("\n");
}

/** Writes results.json, results.md and results.svg into the folder. */
export async function write(folder: string, comparisons: readonly Comparison[]): Promise<void> {
  await mkdir(folder, { recursive: true });
  const machine = describeMachine();
  const facts = Object.entries(machine).map(([name, value]) => `- ${name}: ${value}`);
  await writeFile(join(folder, "results.json"), `${JSON.stringify({ machine, comparisons }, null, 1)}\n`);
  await writeFile(join(folder, "results.md"), [...facts, "", table(comparisons)].join("\n"));
  await writeFile(join(folder, "results.svg"), plot(comparisons));
}
