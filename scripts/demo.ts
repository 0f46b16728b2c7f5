/**
 * From nothing to a command in a real guest, and back to a clean host. Every line is printed after it happened, with the
 * seconds since the one before; anything that is not as it should be ends the demo with a word about it and code 1.
 * The daemon runs in a network namespace that plays the host, so this machine's own network is not touched.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import type { Machine } from "../src/contract/machine.ts";
import { World } from "../test/support/world.ts";

let last = performance.now();

function say(text: string): void {
  const now = performance.now();
  process.stdout.write(`${((now - last) / 1000).toFixed(2).padStart(7)} s  ${text}\n`);
  last = now;
}

/** The answer's body, once its status is the one expected. */
function expectStatus(answer: { status: number; body: unknown }, status: number): void {
  assert.equal(answer.status, status, `the daemon answered ${answer.status}: ${JSON.stringify(answer.body)}`);
}

async function demo(rootDir: string): Promise<void> {
  await using world = await World.make({ rootDir });
  const { body: health } = await world.get("/health");
  say(`the daemon serves on ${world.socket}`);
  process.stdout.write(`           VMM: ${health.vmm.name} ${health.vmm.version}: ${health.vmm.reason}\n`);

  const one = await world.create("one", { memory_mib: 256 });
  say(`machine one was created: SSH answers at ${one.runtime_host} with the host key it was given`);

  await world.ssh(one, "echo 'written in machine one' > /root/note");
  say("a command was run in it over SSH, and wrote /root/note");

  const snapshot = await world.post("/machines/one/snapshots", { snapshot_id: "note" });
  expectStatus(snapshot, 201);
  say(
    `a disk snapshot was taken (${snapshot.body.snapshot.consistency}); the guest stood still for ${snapshot.body.snapshot.paused_ms} ms`,
  );

  const restored = await world.post("/snapshots/note/restore", {
    machine_id: "two",
    memory_mib: 256,
    guest_config: { authorized_keys: [world.key.publicLine] },
  });
  expectStatus(restored, 201);
  const two: Machine = restored.body.machine;
  say("machine two was restored from it");

  const command = "cat /root/note; hostname; cat /etc/machine-id; uname -sr";
  const answer = await world.print(two, command);
  const [note, hostname, machineId] = answer.split("\n");
  assert.equal(note, "written in machine one");
  assert.equal(hostname, "two");
  assert.equal(machineId, two.guest_machine_id);
  assert.notEqual(two.guest_machine_id, one.guest_machine_id);
  assert.notEqual(two.guest_ssh_host_public_key, one.guest_ssh_host_public_key);
  say("it shows the file under its own hostname, host key and machine-id");
  const shell = `           $ ssh root@${two.runtime_host} '${command}'\n${answer.replaceAll(/^/gm, "           ")}\n`;

  assert.equal(await world.print(one, "hostname"), "one", "machine one still answers");
  for (const path of ["/machines/one", "/machines/two", "/snapshots/note"])
    expectStatus(await world.delete(path), 204);
  say("both machines and the snapshot were deleted");

  await world.assertLeavesNothing();
  say("the daemon ended, and nothing is left on the host");
  process.stdout.write(shell);
}

const rootDir = mkdtempSync("/var/tmp/computer-host-demo-");
process.stdout.write(`            root folder: ${rootDir}\n`);
try {
  await demo(rootDir);
} catch (error) {
  process.stderr.write(`\nthe demo FAILED: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  rmSync(rootDir, { recursive: true, force: true });
}
