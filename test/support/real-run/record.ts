import { readFileSync } from "node:fs";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import type { Case } from "./collector.ts";

const closed = { additionalProperties: false } as const;
const Sha256Schema = Type.String({ pattern: "^[0-9a-f]{64}$" });
const ProgramSchema = Type.Object(
  { version: Type.String({ pattern: "^\\d+\\.\\d+\\.\\d+" }), sha256: Sha256Schema },
  closed,
);

const RealRunSchema = Type.Object(
  {
    firecracker: ProgramSchema,
    jailer: ProgramSchema,
    /** What was checked out; `-dirty` when what ran differed from it. */
    commit: Type.String({ pattern: "^[0-9a-f]{40}(-dirty)?$" }),
    date: Type.String({ pattern: "^\\d{4}-\\d\\d-\\d\\dT[0-9:.]+Z$" }),
    sources: Type.Record(Type.String(), Sha256Schema),
    /** By file and name: `passed`, `failed`, or `skipped: ` and the reason. */
    cases: Type.Record(
      Type.String(),
      Type.Record(Type.String(), Type.String({ pattern: "^(passed$|failed$|skipped: .)" })),
    ),
  },
  closed,
);

/** The conformance suite's last run on a real Firecracker and jailer. */
export type RealRun = Static<typeof RealRunSchema>;

export const RECORD = "test/conformance/real-run.json";

/** Reads the record. Throws when it is missing or is not one. */
export function readRecord(): RealRun {
  return Value.Parse(RealRunSchema, JSON.parse(readFileSync(RECORD, "utf8")));
}

/** The suite as it is now. */
export interface Suite {
  readonly sources: Readonly<Record<string, string>>;
  readonly cases: readonly Case[];
}

/**
 * Why the record does not speak for the suite, a line each; none when it does. Age is judged by content, since a
 * checkout has no times of its own: a source whose digest is another one made its cases newer than the run.
 */
export function complaints(record: RealRun, suite: Suite, allowedSkips: readonly string[]): string[] {
  const paths = new Set([...Object.keys(record.sources), ...Object.keys(suite.sources)]);
  const changed = [...paths]
    .filter((path) => record.sources[path] !== suite.sources[path])
    .map((path) => `${path} is newer than the run`);
  const missing = suite.cases
    .filter(({ file, name }) => record.cases[file]?.[name] === undefined)
    .map(({ file, name }) => `${file}: ${name}: was not run`);
  const results = Object.entries(record.cases).flatMap(([file, cases]) =>
    Object.entries(cases)
      .filter(([, result]) => !isGood(result, allowedSkips))
      .map(([name, result]) => `${file}: ${name}: ${result}`),
  );
  return [...changed, ...missing, ...results];
}

function isGood(result: string, allowedSkips: readonly string[]): boolean {
  const reason = /^skipped: (.*)$/s.exec(result)?.[1];
  return reason === undefined
    ? result === "passed"
    : allowedSkips.some((allowed) => reason.startsWith(allowed));
}
