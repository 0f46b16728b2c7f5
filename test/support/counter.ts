import assert from "node:assert/strict";
import type { Machine } from "../../src/contract/machine.ts";
import type { World } from "./world.ts";

/**
 * Starts a process in the guest that counts in memory and shows its count in /run/count, at most 20 a second however
 * fast the host is; by renames, so that nobody reads a file that is being written. Its pid is in /run/counter.
 */
export async function startCounter(world: World, machine: Machine): Promise<void> {
  await world.ssh(
    machine,
    "echo 0 > /run/count; nohup sh -c 'echo $$ > /run/counter; i=0; while :; do i=$((i+1)); echo $i > /run/count.new; mv /run/count.new /run/count; sleep 0.05; done' >/dev/null 2>&1 &",
  );
}

/** How far the counter of the guest is. */
export async function countIn(world: World, machine: Machine, before = "true"): Promise<number> {
  const text = await world.print(machine, `${before}; cat /run/count`);
  assert.match(text, /^\d+$/, `the counter of ${machine.id} says ${JSON.stringify(text)}`);
  return Number(text);
}

/** Asserts that the counter runs: it is further a second later. */
export async function assertCountsOn(world: World, machine: Machine): Promise<void> {
  const before = await countIn(world, machine);
  const after = await countIn(world, machine, "sleep 1");
  assert.ok(after > before, `${machine.id} stands at ${before}`);
}
