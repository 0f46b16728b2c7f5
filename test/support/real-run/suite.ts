import { fileURLToPath } from "node:url";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { run } from "../../../src/system/run.ts";
import type { Suite } from "./record.ts";
import { sourceDigests, testFiles } from "./sources.ts";

const CasesSchema = Type.Array(Type.Object({ file: Type.String(), name: Type.String() }));
const LIST_CASES = fileURLToPath(new URL("list-cases.ts", import.meta.url));
const LIST_TIMEOUT_MS = 60_000;

/** Reads the suite: its sources and the cases that they declare. Nothing of it runs. */
export async function readSuite(): Promise<Suite> {
  return { sources: sourceDigests(), cases: await listCases(testFiles()) };
}

async function listCases(files: readonly string[]): Promise<Static<typeof CasesSchema>> {
  // In a process of its own: what it puts in the place of node:test would stay there.
  const { stdout } = await run([process.execPath, LIST_CASES, ...files], { timeoutMs: LIST_TIMEOUT_MS });
  return Value.Parse(CasesSchema, JSON.parse(stdout));
}
