import assert from "node:assert/strict";
import type { Machine } from "../../src/contract/machine.ts";
import type { World } from "./world.ts";

/**
 * What counts in the guest: in bash's own memory and by its own means, since an emulated processor takes long to start a
 * program. Ten times a second at most, however fast the host is. The count is as wide each time and written over the
 * one before, so that nobody finds the file empty.
 */
const COUNT = [
  "echo $$ > /run/counter",
  "exec 4<> <(:)",
  "for ((i = 0; ; i++)); do printf '%09d\\n' $i 1<> /run/count; read -t 0.1 -u 4; done",
].join("; ");

/** Starts a process in the guest that counts, and shows its count in /run/count and its pid in /run/counter. */
export async function startCounter(world: World, machine: Machine): Promise<void> {
  const script = Buffer.from(COUNT).toString("base64");
  await world.ssh(
    machine,
    `echo 000000000 > /run/count; nohup bash -c "$(echo ${script} | base64 -d)" >/dev/null 2>&1 &`,
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
  const [before = "", after = ""] = (
    await world.print(machine, "cat /run/count; sleep 1; cat /run/count")
  ).split("\n");
  assert.match(`${before} ${after}`, /^\d+ \d+$/, `the counter of ${machine.id}`);
  assert.ok(Number(after) > Number(before), `${machine.id} stands at ${before}`);
}
