import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { choosePair, type PairSources, writeProven } from "../../../src/vmm/pair.ts";
import {
  isAtLeast,
  OLDEST,
  parseSnapshotFormat,
  parseVersion,
  SERIAL_RATE_LIMITER,
} from "../../../src/vmm/version.ts";

/** A folder of programs that only know their version. */
async function programs() {
  const directory = await mkdtemp(join(tmpdir(), "pair-"));
  const program = async (path: string, prints: string): Promise<string> => {
    const file = join(directory, path);
    await mkdir(join(file, ".."), { recursive: true });
    const format = '[ "$1" != --snapshot-version ] || { echo v11.0.0; echo "a line of the log"; exit; }';
    await writeFile(file, `#!/bin/sh\n${format}\n[ "$1" = --version ] || exit 1\n${prints}\n`);
    await chmod(file, 0o755);
    return file;
  };
  const pair = async (folder: string, version: string, jailer = version) => ({
    firecrackerPath: await program(`${folder}/firecracker`, `echo Firecracker v${version}`),
    jailerPath: await program(`${folder}/jailer`, `echo Jailer v${jailer}`),
  });
  const sources: PairSources = {
    searchPath: [join(directory, "none"), join(directory, "bin")],
    fallback: { ...(await pair("fallback", "1.17.0")), label: "fallback", reason: "nothing else" },
    provenFile: join(directory, "proven.json"),
  };
  return {
    directory,
    program,
    pair,
    sources,
    [Symbol.asyncDispose]: async () => await rm(directory, { recursive: true }),
  };
}

test("with nothing named and nothing proven the fallback is taken, and says why", async () => {
  await using host = await programs();
  await host.pair("bin", "1.17.0");
  const chosen = await choosePair(host.sources);
  assert.equal(chosen.label, "fallback");
  assert.equal(chosen.reason, "nothing else");
  assert.equal(chosen.version.text, "1.17.0");
  assert.equal(chosen.snapshotFormat, "11.0.0");
});

test("a named pair is taken", async () => {
  await using host = await programs();
  const chosen = await choosePair({ ...host.sources, ...(await host.pair("named", "1.16.1-dev")) });
  assert.match(chosen.reason, /^named by FIRECRACKER_BINARY_PATH and JAILER_BINARY_PATH/);
  assert.equal(chosen.version.text, "1.16.1-dev");
});

test("one named without the other is refused", async () => {
  await using host = await programs();
  const { firecrackerPath, jailerPath } = await host.pair("named", "1.17.0");
  await assert.rejects(choosePair({ ...host.sources, firecrackerPath }), {
    message: "FIRECRACKER_BINARY_PATH is set but JAILER_BINARY_PATH is not: set both, or neither.",
  });
  await assert.rejects(choosePair({ ...host.sources, jailerPath }), {
    message: "JAILER_BINARY_PATH is set but FIRECRACKER_BINARY_PATH is not: set both, or neither.",
  });
});

test("a named pair that cannot be run is refused, never replaced", async () => {
  await using host = await programs();
  const good = await host.pair("named", "1.17.0");
  const refused = async (change: Partial<PairSources>, message: RegExp): Promise<void> =>
    await assert.rejects(choosePair({ ...host.sources, ...good, ...change }), { message });
  await refused({ jailerPath: join(host.directory, "missing") }, /missing .* is not an executable file/);
  await refused({ firecrackerPath: host.directory }, /is not an executable file/);
  await refused({ firecrackerPath: "" }, /is not an absolute path/);
  await refused({ firecrackerPath: "bin/firecracker" }, /is not an absolute path/);
  const broken = await host.program("broken", "exit 3");
  await refused({ firecrackerPath: broken }, /broken --version does not work: .* exited with 3/);
  const silent = await host.program("silent", "echo hello");
  await refused({ firecrackerPath: silent }, /silent --version names no version: hello/);
});

test("a pair that is too old, or of two releases, is refused", async () => {
  await using host = await programs();
  await assert.rejects(choosePair({ ...host.sources, ...(await host.pair("old", "1.14.2")) }), {
    message: /is version 1\.14\.2; 1\.15 or newer is needed: older ones damage diff snapshots/,
  });
  await assert.rejects(choosePair({ ...host.sources, ...(await host.pair("mixed", "1.17.0", "1.16.0")) }), {
    message: /is version 1\.17\.0 but .* is 1\.16\.0: take both from one release/,
  });
});

test("an installed pair is taken once Linux has booted under it, until it is another one", async () => {
  await using host = await programs();
  const installed = await host.pair("bin", "1.17.0");
  const { provenFile } = host.sources;
  await writeProven(provenFile, await choosePair({ ...host.sources, ...installed }));
  assert.match((await choosePair(host.sources)).reason, /^installed in .*bin, and Linux has booted under it/);
  await host.pair("bin", "1.18.0");
  assert.equal((await choosePair(host.sources)).label, "fallback");
  await writeFile(provenFile, "not JSON");
  assert.equal((await choosePair(host.sources)).label, "fallback");
});

test("a proof is written only when it is new", async () => {
  await using host = await programs();
  const chosen = await choosePair(host.sources);
  const { provenFile } = host.sources;
  await writeProven(provenFile, chosen);
  const first = await readFile(provenFile, "utf8");
  await chmod(provenFile, 0o400);
  await writeProven(provenFile, chosen);
  assert.equal(await readFile(provenFile, "utf8"), first);
});

test("versions are read as the programs print them", () => {
  assert.deepEqual(parseVersion("Firecracker v1.17.0-dev\n\n"), { major: 1, minor: 17, text: "1.17.0-dev" });
  assert.deepEqual(parseVersion("Jailer v1.16.1\n"), { major: 1, minor: 16, text: "1.16.1" });
  assert.equal(parseVersion("no version here"), undefined);
  const at = (text: string) => parseVersion(text) ?? OLDEST;
  assert.equal(isAtLeast(at("1.15.0"), OLDEST), true);
  assert.equal(isAtLeast(at("1.14.9"), OLDEST), false);
  assert.equal(isAtLeast(at("1.9.9"), OLDEST), false);
  assert.equal(isAtLeast(at("2.0.0"), SERIAL_RATE_LIMITER), true);
});

test("a snapshot's format is read from between the lines of a log", () => {
  const log = "2026-01-01T00:00:00.1 [anonymous-instance:main] Firecracker exiting successfully. exit_code=0";
  assert.equal(parseSnapshotFormat(`v11.0.0\n${log}\n`), "11.0.0");
  assert.equal(parseSnapshotFormat(`${log}\n10.2.1-rc.1\n`), "10.2.1-rc.1");
  assert.equal(parseSnapshotFormat(`${log}\n`), undefined);
  assert.equal(parseSnapshotFormat("v11\n"), undefined);
});

test("a VMM that does not tell its snapshots' format is refused", async () => {
  await using host = await programs();
  const pair = await host.pair("named", "1.17.0");
  await writeFile(
    pair.firecrackerPath,
    '#!/bin/sh\n[ "$1" = --version ] && echo Firecracker v1.17.0 || exit 3\n',
  );
  await assert.rejects(choosePair({ ...host.sources, ...pair }), {
    message: /--snapshot-version does not work: .* exited with 3/,
  });
});
