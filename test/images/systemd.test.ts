import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makeDisk, TestGuest } from "./guest.ts";
import { makeIdentity } from "./identity.ts";
import { TestSlot } from "./slot.ts";
import { assertBecomes } from "./unique.ts";

const IMAGE = "debian";

test("debian boots systemd with the identity of its seed, healthy, becomes another while it runs, and shuts down cleanly", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "ch-images-"));
  stack.defer(() => rm(folder, { recursive: true }));
  const slot = stack.use(await TestSlot.make());
  const disk = await makeDisk(IMAGE, join(folder, "disk"));
  const identity = await makeIdentity(folder, "systemd-machine");
  const guest = stack.use(await TestGuest.boot({ slot, image: IMAGE, disk, folder, identity }));
  await guest.ready();

  const found = await guest.ask({
    init: "cat /proc/1/comm",
    hostname: "hostname",
    machineId: "cat /etc/machine-id",
    health: "systemctl is-system-running --wait",
    failed: "systemctl list-units --failed --plain --no-legend",
  });
  assert.deepEqual(found, {
    init: "systemd",
    hostname: identity.hostname,
    machineId: identity.machineId,
    health: "running",
    failed: "",
  });
  await guest.ssh("date -s '2001-02-03 04:05:06'");
  const woken = await makeIdentity(folder, "woken-machine");
  await assertBecomes(guest, woken);
  const after = await guest.ask({
    health: "systemctl is-system-running",
    journal: "logger awake; sleep 1; journalctl -q -n 50 | grep -o 'woken-machine .*awake'",
  });
  assert.equal(after.health, "running");
  assert.match(after.journal, /^woken-machine /);
  // A machine that powers off for good would not end Firecracker.
  await guest.ssh("systemctl poweroff").catch(() => {});
  await guest.waitEnd(40_000);
  assert.doesNotMatch(guest.console(), /Failed to start/);

  const again = stack.use(await TestGuest.boot({ slot, image: IMAGE, disk, folder, identity: woken }));
  await again.ready();
  assert.equal(await again.ssh("hostname; cat /etc/machine-id"), `${woken.hostname}\n${woken.machineId}`);
  assert.doesNotMatch(again.console(), /identity applied/);
});
