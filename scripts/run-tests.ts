import { globSync } from "node:fs";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { NEEDS_REAL_PAIR, realPair } from "../test/support/real-run/pair.ts";
import { allowedSkips } from "../test/support/skips.ts";

interface Suite {
  readonly name: string;
  readonly files: string;
  /** A file that another suite runs. */
  readonly except?: string;
  /** How many files run side by side. */
  readonly concurrency: number;
  /** Limit of a file. */
  readonly timeoutMs: number;
  /** Too long for every run. */
  readonly onlyByName?: boolean;
}

/** Ten guests at once need the machine for themselves. */
const ISOLATION = "test/e2e/isolation.test.ts";

/** Suites in the order they run; what is quick and precise comes first. */
const SUITES: readonly Suite[] = [
  { name: "unit", files: "test/unit/**/*.test.ts", concurrency: 2, timeoutMs: 120_000 },
  { name: "rooms", files: "test/{network,storage}/**/*.test.ts", concurrency: 1, timeoutMs: 300_000 },
  { name: "oracle", files: "test/oracle.test.ts", concurrency: 1, timeoutMs: 300_000 },
  { name: "images", files: "test/images/**/*.test.ts", concurrency: 2, timeoutMs: 600_000 },
  { name: "conformance", files: "test/conformance/**/*.test.ts", concurrency: 1, timeoutMs: 600_000 },
  { name: "e2e", files: "test/e2e/**/*.test.ts", except: ISOLATION, concurrency: 2, timeoutMs: 900_000 },
  {
    name: "faults",
    files: "test/faults/**/*.test.ts",
    // They wait more than they work, each in a network of its own.
    concurrency: 2,
    timeoutMs: process.env["FAULTS"] === "full" ? 7_200_000 : 900_000,
  },
  { name: "bench", files: "test/bench/**/*.test.ts", concurrency: 1, timeoutMs: 600_000 },
  { name: "isolation", files: ISOLATION, concurrency: 1, timeoutMs: 900_000 },
  {
    name: "soak",
    files: "test/soak/**/*.test.ts",
    concurrency: 1,
    timeoutMs: 3_600_000,
    onlyByName: true,
  },
  {
    name: "lab",
    files: "test/lab/**/*.test.ts",
    concurrency: 1,
    timeoutMs: (process.env["LAB"] ?? "short") === "short" ? 1_600_000 : 3_600_000,
  },
];

interface Outcome {
  passed: number;
  failed: number;
  skipped: string[];
}

/** A suite is ended after so many times the limit of a file: one that hangs must not hold up what calls it. */
const WHOLE = 2;

async function runSuite({ name, files, except, concurrency, timeoutMs }: Suite): Promise<Outcome> {
  const paths = globSync(files)
    .filter((path) => path !== except)
    .sort();
  const outcome: Outcome = { passed: 0, failed: 0, skipped: [] };
  process.stdout.write(`\n== ${name}: ${paths.length} files\n`);
  if (paths.length === 0) return outcome;
  const stream = run({
    files: paths,
    concurrency,
    timeout: timeoutMs,
    signal: AbortSignal.timeout(timeoutMs * WHOLE),
    execArgv: ["--disable-warning=ExperimentalWarning"],
  });
  stream.on("test:pass", ({ skip, name: test, details }) => {
    if (details.type === "suite") return;
    if (skip === undefined || skip === false) outcome.passed += 1;
    else outcome.skipped.push(typeof skip === "string" ? skip : `${test} (no reason given)`);
  });
  stream.on("test:fail", ({ details }) => {
    if (details.type !== "suite") outcome.failed += 1;
  });
  const failedFiles = Promise.withResolvers<void>();
  stream.once("end", () => failedFiles.resolve());
  stream.compose(new spec()).pipe(process.stdout, { end: false });
  await failedFiles.promise;
  return outcome;
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !SUITES.some((suite) => suite.name === name));
if (unknown.length > 0) {
  process.stderr.write(
    `no such suite: ${unknown.join(", ")}; there are ${SUITES.map(({ name }) => name).join(", ")}\n`,
  );
  process.exit(2);
}
const required = (process.env["REQUIRE"] ?? "").split(",");
if (process.getuid?.() !== 0 && (required.includes("root") || wanted.length === 0)) {
  process.stderr.write("the tests need root: use sudo make test, or make test-unit\n");
  process.exit(1);
}
if (required.includes("firecracker") && realPair() === undefined) {
  process.stderr.write(`REQUIRE=firecracker ${NEEDS_REAL_PAIR}\n`);
  process.exit(1);
}

const started = performance.now();
const total: Outcome = { passed: 0, failed: 0, skipped: [] };
const table: string[] = [];
for (const suite of SUITES) {
  if (wanted.length > 0 ? !wanted.includes(suite.name) : suite.onlyByName === true) continue;
  const begun = performance.now();
  const { passed, failed, skipped } = await runSuite(suite);
  total.passed += passed;
  total.failed += failed;
  total.skipped.push(...skipped);
  const seconds = Math.round((performance.now() - begun) / 1000);
  table.push(
    `${suite.name.padEnd(12)} ${passed} passed, ${failed} failed, ${skipped.length} skipped in ${seconds} s`,
  );
}

// Only unit tests run without root, and say which of them need it; what CI runs is refused above.
const allowed = process.getuid?.() === 0 ? allowedSkips() : [...allowedSkips(), "needs root"];
const forbidden = total.skipped.filter((reason) => !allowed.some((start) => reason.startsWith(start)));
process.stdout.write(`\n${table.join("\n")}\n`);
for (const reason of new Set(total.skipped)) process.stdout.write(`skipped: ${reason}\n`);
for (const reason of new Set(forbidden))
  process.stdout.write(`a skip that test/skips.txt does not allow: ${reason}\n`);
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped.length} skipped\n`);
process.stdout.write(`in ${Math.round((performance.now() - started) / 1000)} s\n`);
process.exit(total.failed > 0 || forbidden.length > 0 || total.passed === 0 ? 1 : 0);
