import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import assert from "node:assert/strict";
import type { Machine } from "../../src/contract/machine.ts";
import type { Lab } from "./lab.ts";

/**
 * A subtest whose failure ends the whole test: what comes after builds on it. It is reported once its body has ended;
 * in a lab that froze it proves nothing either way: `LabFroze` is thrown and nothing reported.
 */
export async function step(t: TestContext, lab: Lab, name: string, body: () => Promise<void>): Promise<void> {
  const began = performance.now();
  const thrown: unknown[] = [];
  await body().catch((error: unknown) => thrown.push(error));
  if (thrown.length > 0) await lab.assertAwake();
  await t.test(`${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`, () => {
    if (thrown.length > 0) throw thrown[0];
  });
  if (thrown.length > 0) throw new Error(`${name}: failed, and the rest was not tried`, { cause: thrown[0] });
}

/** The VMM lies in a leaf of its own below our parent, and nothing that runs a guest in the service's cgroup. */
export async function assertOwnCgroup(lab: Lab, vmm: NonNullable<Machine["vmm"]>): Promise<void> {
  assert.match(
    await lab.print(`cat /proc/${vmm.pid}/cgroup`),
    new RegExp(`^0::/computer-host-[0-9a-f]{6}/${vmm.jail_id}$`),
  );
  assert.match(
    await lab.print(`cat /sys/fs/cgroup/computer-host-*/${vmm.jail_id}/memory.max`),
    /^[0-9]+$/,
    "its memory is limited",
  );
  // What the daemon runs for a moment is in there with it; what runs a guest must not be, or a stop of the service ends it.
  const inService = await lab.print(
    "cd /sys/fs/cgroup/system.slice/computer-host.service; for p in $(cat cgroup.procs); do echo $p $(cat /proc/$p/comm 2>/dev/null); done",
  );
  const daemon = await lab.print("systemctl show -p MainPID --value computer-host");
  assert.match(inService, new RegExp(`^${daemon} `, "m"), "the service holds the daemon");
  assert.doesNotMatch(inService, /firecracker|jailer|qemu/, "and nothing that runs a guest");
}

/** Nothing of the machine is left: its process, jail, cgroup, disk and what its namespace was opened for. */
export async function assertGone(lab: Lab, { id, vmm }: Machine): Promise<void> {
  assert.ok(vmm);
  const left = await lab.print(
    [
      // Sweeps may lag behind the answer: for at most ten seconds.
      "for i in $(seq 50); do",
      `left=$(ls -d /proc/${vmm.pid} /var/lib/computer-host/machines/${id} /var/lib/computer-host/jails/*/${vmm.jail_id} \\`,
      `/sys/fs/cgroup/computer-host-*/${vmm.jail_id} 2>/dev/null)`,
      '[ -n "$left" ] || exit 0',
      "sleep 0.2",
      "done",
      'echo "$left"',
    ].join("\n"),
  );
  assert.equal(left, "");
}

/** Asks `look` again every half a second until it answers true. Throws with `what` after `limitMs`. */
export async function until(what: string, limitMs: number, look: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + limitMs;
  while (!(await look())) {
    if (performance.now() > end) throw new Error(`not within ${limitMs / 1000} s: ${what}`);
    await sleep(500);
  }
}
