/** Runs tests with one undo switched off. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { text } from "node:stream/consumers";
import type { Undo } from "./undos.ts";

const REPOSITORY = join(import.meta.dirname, "../..");
const SWITCH = join(import.meta.dirname, "switch.ts");
/** Limit of a file: an undo that is missing may well hang a test. */
const FILE_MS = 120_000;

/** What the tests of a file said, with an undo switched off. */
export interface Verdict {
  readonly passed: number;
  /** Names of the tests that failed. */
  readonly failed: readonly string[];
  /** Whether the tests came to the undo at all. */
  readonly reached: boolean;
}

/**
 * The test files that could see an undo of the file `path` of that room, relative to the repository. Those that are named
 * as it is come first, then the crash tests, then all others of the room.
 */
export function filesFor({ room, path }: Pick<Undo, "room" | "path">): readonly string[] {
  const glob = (pattern: string): string[] => globSync(pattern, { cwd: REPOSITORY }).sort();
  return [
    ...new Set([
      ...glob(`test/{unit/,}${room}/${basename(path, ".ts")}.test.ts`),
      ...glob(`test/unit/${room}/*-crash.test.ts`),
      ...glob(`test/unit/${room}/*crash.test.ts`),
      ...glob(`test/unit/${room}/**/*.test.ts`),
      ...glob(`test/${room}/**/*.test.ts`),
    ]),
  ];
}

/** Runs the test file with the undo at `place` switched off, or with none. One that hangs is ended after two minutes. */
export async function runWithout(place: string | undefined, file: string): Promise<Verdict> {
  const folder = mkdtempSync(join(tmpdir(), "undos-"));
  const log = join(folder, "log");
  try {
    writeFileSync(log, "");
    const { NODE_TEST_CONTEXT: _nested, ...env } = process.env;
    const child = spawn(process.execPath, ["--test-reporter=tap", file], {
      cwd: REPOSITORY,
      // Of the processes that a test starts, too: rooms that live in a namespace.
      env: { ...env, NODE_OPTIONS: `--import ${SWITCH}`, UNDO_OFF: place ?? "", UNDO_LOG: log },
      stdio: ["ignore", "pipe", "ignore"],
      timeout: FILE_MS,
      killSignal: "SIGKILL",
    });
    const [said, [code, signal]] = await Promise.all([text(child.stdout), once(child, "close")]);
    const failed = [...said.matchAll(/^ *not ok \d+ - (.*)$/gm)].map(([, name]) => name ?? "");
    // One that was ended has no names to tell; nor has one that threw before its first test.
    if (failed.length === 0 && code !== 0) failed.push(`it ended with ${String(signal ?? code)}`);
    const passed = [...said.matchAll(/^ *ok \d+ - (?!.*# SKIP)/gm)].length;
    return { passed, failed, reached: readFileSync(log, "utf8") !== "" };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
