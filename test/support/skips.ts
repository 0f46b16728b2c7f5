import { readFileSync } from "node:fs";

/** Reasons for which a test may be skipped: the lines of test/skips.txt, matched against the start of the reason. */
export function allowedSkips(): string[] {
  return readFileSync("test/skips.txt", "utf8")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}
