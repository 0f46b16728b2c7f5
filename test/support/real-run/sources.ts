import { createHash } from "node:crypto";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/** The suite's test files, in the order they run. Paths are relative to the checkout, the working directory. */
export function testFiles(): string[] {
  return globSync("test/conformance/**/*.test.ts").sort();
}

/**
 * SHA-256 of every file that decides what the suite's cases do: tests, support, fixtures, and what they import elsewhere
 * under test/. The daemon's own sources are none: a case is not newer because the code that it judges is.
 */
export function sourceDigests(): Record<string, string> {
  const found = new Set(globSync(["test/conformance/**/*.ts", "test/fixtures/*/*"]));
  // What is added to a set while it is walked is walked too.
  for (const path of found) for (const target of importsOf(path)) found.add(target);
  return Object.fromEntries([...found].sort().map((path) => [path, sha256(path)]));
}

/** The SHA-256 of a file as hex digits. */
export function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

function importsOf(path: string): string[] {
  if (!path.endsWith(".ts")) return [];
  return [...readFileSync(path, "utf8").matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+\.ts)"/g)]
    .map(([, target = ""]) => normalize(join(dirname(path), target)))
    .filter((target) => target.startsWith("test/"));
}
