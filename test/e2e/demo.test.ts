import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { identifyProcess } from "../../src/system/process.ts";
import { jailedProcesses } from "../support/wreck.ts";

test("the demo fails loudly when the VMM is killed in the middle of it", async () => {
  const demo = spawn(process.execPath, ["scripts/demo.ts"], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  let rootDir = "";
  let killed = 0;
  demo.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  for await (const line of createInterface({ input: demo.stdout })) {
    said += `${line}\n`;
    rootDir = /root folder: (\S+)/.exec(line)?.[1] ?? rootDir;
    if (/machine one was created/.test(line)) {
      for (const pid of jailedProcesses(rootDir)) {
        // The first to go may take the others with it.
        if (identifyProcess(pid) === undefined) continue;
        process.kill(pid, "SIGKILL");
        killed += 1;
      }
    }
  }
  if (demo.exitCode === null) await once(demo, "exit");
  assert.ok(killed > 0, said);
  assert.equal(demo.exitCode, 1, said);
  assert.match(said, /the demo FAILED/);
  assert.doesNotMatch(said, /nothing is left/);
  assert.deepEqual(jailedProcesses(rootDir), []);
  assert.ok(!existsSync(rootDir));
});
