import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { GuestMemory, PAGE } from "../../../../src/standin/vmm/guest-memory.ts";

/** A process that stands still, and where its stack lies: memory that is written at its end only. */
async function startSleeper(): Promise<AsyncDisposable & { pid: number; start: number; bytes: number }> {
  const child = spawn("sleep", ["60"], { stdio: "ignore", env: { PROBE: "find me in the stack" } });
  await once(child, "spawn");
  const { pid = 0 } = child;
  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    if (child.signalCode === null) await once(child, "exit");
  };
  // The spawn is told before the exec is through, and a name in the maps is of whoever runs by then.
  for (;;) {
    const maps = readFileSync(`/proc/${pid}/maps`, "utf8");
    const [, from = "", to = ""] = /^([0-9a-f]+)-([0-9a-f]+) .*\[stack\]$/m.exec(maps) ?? [];
    if (maps.includes("sleep") && from !== "") {
      const start = Number.parseInt(from, 16);
      return { pid, start, bytes: Number.parseInt(to, 16) - start, [Symbol.asyncDispose]: stop };
    }
  }
}

test("another process's memory is read and written, and what it never touched is told", async () => {
  await using sleeper = await startSleeper();
  using memory = new GuestMemory(sleeper.pid, sleeper.start, sleeper.bytes);
  const last = Buffer.alloc(PAGE);
  memory.read(sleeper.bytes - PAGE, last);
  assert.ok(last.includes("PROBE=find me in the stack"));
  assert.ok(memory.isTouched(sleeper.bytes - PAGE, PAGE));
  assert.ok(!memory.isTouched(0, PAGE));
  memory.write(0, Buffer.alloc(PAGE, 7));
  const first = Buffer.alloc(PAGE);
  memory.read(0, first);
  assert.ok(first.equals(Buffer.alloc(PAGE, 7)));
  assert.ok(memory.isTouched(0, PAGE));
});

test("a process that is not there has no memory", () => {
  assert.throws(() => new GuestMemory(2 ** 22 + 1, 0, PAGE), { code: "ENOENT" });
});
