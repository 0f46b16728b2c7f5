import assert from "node:assert/strict";
import { test } from "node:test";
import { RunError, run } from "../../../src/system/run.ts";

/** Keeps the event loop from hearing of anything for so long. */
function block(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

test("a program that ended well is no failure because the event loop was busy past its limit", async () => {
  const result = run(["echo", "done"], { timeoutMs: 100 });
  block(600);
  assert.equal((await result).stdout, "done\n");
});

test("a program that is still there at its limit is ended, and the error says so", async () => {
  await assert.rejects(run(["sleep", "60"], { timeoutMs: 100 }), (error) => {
    assert.ok(error instanceof RunError);
    assert.equal(error.timedOut, true);
    assert.equal(error.signal, "SIGTERM");
    assert.match(error.message, /^sleep 60 timed out/);
    return true;
  });
});

test("a program that fails says what was run and what it said", async () => {
  await assert.rejects(run(["ls", "/no/such/file"]), (error) => {
    assert.ok(error instanceof RunError);
    assert.equal(error.code, 2);
    assert.match(error.message, /^ls \/no\/such\/file exited with 2: .*No such file/);
    return true;
  });
});

test("a process that a program left with its output holds nobody up, whether it ended well or at its limit", async () => {
  const left = await run(["sh", "-c", "sleep 20 & echo $!"], { timeoutMs: 10_000 });
  process.kill(Number(left.stdout), "SIGKILL");
  assert.ok(left.durationMs < 15_000, `${left.durationMs} ms`);
  const began = performance.now();
  const late = run(["sh", "-c", "sleep 21 & echo $! >&2; exec sleep 22"], { timeoutMs: 200 });
  await assert.rejects(late, (error) => {
    assert.ok(error instanceof RunError && error.timedOut);
    process.kill(Number(error.stderr), "SIGKILL");
    return true;
  });
  assert.ok(performance.now() - began < 15_000);
});
