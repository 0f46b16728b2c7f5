import { copyFile, mkdir, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeFileDurably } from "../../../src/system/files.ts";
import { run } from "../../../src/system/run.ts";

/** A VMM and a jailer of the tests' own, in a folder of their own. */
export interface StubPair {
  readonly firecrackerPath: string;
  readonly jailerPath: string;
  /** Tells the jailer to misbehave: see stub-jailer.c. */
  tellJailer(word: string): Promise<void>;
}

/** Builds the stubs (once, while the sources stay the same) and puts copies into `directory`. */
export async function stubPair(directory: string): Promise<StubPair> {
  const cache = join(tmpdir(), `computer-host-stub-vmm-${process.getuid?.() ?? 0}`);
  await mkdir(cache, { recursive: true, mode: 0o700 });
  const [firecrackerPath = "", jailerPath = ""] = await Promise.all(
    ["stub-firecracker", "stub-jailer"].map(async (name) => {
      const path = join(directory, name);
      await copyFile(await build(name, cache), path);
      return path;
    }),
  );
  return {
    firecrackerPath,
    jailerPath,
    tellJailer: async (word) => await writeFileDurably(join(directory, "stub-jailer.conf"), word),
  };
}

async function build(name: string, cache: string): Promise<string> {
  const source = join(import.meta.dirname, `${name}.c`);
  const { mtimeMs } = await stat(source);
  const program = join(cache, `${name}-${Math.trunc(mtimeMs)}`);
  try {
    await stat(program);
  } catch {
    // Static: it runs in a jail without libraries. Test files run side by side, so it appears under its name whole.
    const temporary = `${program}.${process.pid}`;
    await run(["gcc", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-static", "-o", temporary, source], {
      timeoutMs: 60_000,
    });
    await run(["mv", temporary, program]);
  }
  return program;
}
