import { writeFileSync } from "node:fs";
import { run as runTests } from "node:test";
import { inspect } from "node:util";
import { run } from "../src/system/run.ts";
import { caseName } from "../test/support/real-run/collector.ts";
import { NEEDS_REAL_PAIR, realPair } from "../test/support/real-run/pair.ts";
import { complaints, RECORD, type RealRun } from "../test/support/real-run/record.ts";
import { sha256, sourceDigests, testFiles } from "../test/support/real-run/sources.ts";
import { readSuite } from "../test/support/real-run/suite.ts";
import { allowedSkips } from "../test/support/skips.ts";

/*
 * Runs the conformance suite on the real pair that the environment names, and writes what came of it to
 * test/conformance/real-run.json: all of it or, when the run is interrupted, nothing.
 */
const FILE_TIMEOUT_MS = 600_000;
/** What a run executes beside the suite's own sources, which have their digests in the record. */
const EXECUTED = ["src", "test/conformance", "test/fixtures", "test/support/contracts"];

async function programOf(path: string): Promise<RealRun["firecracker"]> {
  const { stdout } = await run([path, "--version"]);
  const version = /^\w+ v(\S+)$/m.exec(stdout)?.[1];
  if (version === undefined) throw new Error(`${path} --version told no version: ${stdout}`);
  return { version, sha256: sha256(path) };
}

async function checkedOut(): Promise<string> {
  // Root runs this in a checkout that may be somebody else's.
  const git = ["git", "-c", "safe.directory=*"] as const;
  const head = (await run([...git, "rev-parse", "HEAD"])).stdout.trim();
  const { stdout } = await run([...git, "status", "--porcelain", "--", ...EXECUTED, `:(exclude)${RECORD}`]);
  return stdout === "" ? head : `${head}-dirty`;
}

/** Runs one file's cases: their results by name. Groups are not cases, but part of their names. */
async function runFile(file: string): Promise<Record<string, string>> {
  const results: Record<string, string> = {};
  const names: string[] = [];
  const note = (name: string, nesting: number, result: string): void => {
    results[caseName([...names.slice(0, nesting), name])] = result;
  };
  const stream = runTests({
    files: [file],
    concurrency: 1,
    timeout: FILE_TIMEOUT_MS,
    execArgv: ["--disable-warning=ExperimentalWarning"],
  });
  stream.on("test:start", ({ name, nesting }) => (names[nesting] = name));
  stream.on("test:pass", ({ name, nesting, skip, details }) => {
    if (details.type === "suite") return;
    const skipped = skip !== undefined && skip !== false;
    // What follows a reason's colon is of this machine, such as a path.
    const reason = typeof skip === "string" ? skip.split(":", 1)[0] : "no reason given";
    note(name, nesting, skipped ? `skipped: ${reason}` : "passed");
  });
  stream.on("test:fail", ({ name, nesting, details }) => {
    if (details.type === "suite") return;
    note(name, nesting, "failed");
    process.stderr.write(`${file}: ${name}: ${inspect(details.error)}\n`);
  });
  for await (const _event of stream);
  return results;
}

const pair = realPair();
if (pair === undefined || process.getuid?.() !== 0) {
  process.stderr.write(`record-real-run: needs root, and ${NEEDS_REAL_PAIR}\n`);
  process.exit(1);
}
const before = {
  firecracker: await programOf(pair.firecracker),
  jailer: await programOf(pair.jailer),
  commit: await checkedOut(),
  date: new Date().toISOString(),
  sources: sourceDigests(),
};
const cases: RealRun["cases"] = {};
for (const file of testFiles()) {
  const results = await runFile(file);
  cases[file] = results;
  process.stdout.write(`${file}: ${Object.keys(results).length} cases\n`);
}
const record: RealRun = { ...before, cases };
writeFileSync(RECORD, `${JSON.stringify(record, null, 2)}\n`);
const found = complaints(record, await readSuite(), allowedSkips());
for (const line of found) process.stderr.write(`${line}\n`);
const results = Object.values(cases).flatMap((file) => Object.values(file));
const count = (start: string): number => results.filter((result) => result.startsWith(start)).length;
process.stdout.write(
  `${RECORD}: ${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped\n`,
);
process.exit(found.length > 0 ? 1 : 0);
