import assert from "node:assert/strict";
import { test } from "node:test";
import { inWorld } from "../support/world.ts";

test("a snapshot of a guest that is writing: its own filesystem comes up whole, with another identity", async () => {
  await inWorld(async (world) => {
    const source = await world.create("source", { memory_mib: 256 });
    // Each line is on the disk before the next is begun: of what was synced, nothing may be missing afterwards.
    await world.ssh(
      source,
      "nohup sh -c 'i=0; while :; do i=$((i+1)); echo $i >> /root/count; sync /root/count; dd if=/dev/urandom of=/root/noise.$((i%8)) bs=64k count=4 2>/dev/null; done' >/dev/null 2>&1 &",
    );
    let synced = 0;
    while (synced < 3)
      synced = Number(await world.print(source, "tail -n 1 /root/count 2>/dev/null || echo 0"));
    const snapshot = await world.post("/machines/source/snapshots", { snapshot_id: "busy" });
    assert.equal(snapshot.status, 201, JSON.stringify(snapshot.body));
    const after = Number(await world.print(source, "sleep 1; tail -n 1 /root/count"));
    assert.ok(after > synced, "the source went on writing");

    const names = ["left", "right"];
    const machines = await Promise.all(
      names.map(async (machine_id) => {
        const answer = await world.post("/snapshots/busy/restore", {
          machine_id,
          memory_mib: 192,
          guest_config: { authorized_keys: [world.key.publicLine] },
        });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        return answer.body.machine;
      }),
    );
    const identities = new Set([source, ...machines].map(({ guest_machine_id }) => guest_machine_id));
    assert.equal(identities.size, 3);
    for (const machine of machines) {
      const lines = (await world.print(machine, "cat /root/count")).split("\n").map(Number);
      assert.ok(lines.length >= synced, `${lines.length} lines of at least ${synced}`);
      assert.deepEqual(
        lines,
        Array.from({ length: lines.length }, (_, index) => index + 1),
        "no line is torn or missing",
      );
      assert.equal(await world.print(machine, "hostname"), machine.id);
      assert.equal(await world.print(machine, "cat /etc/machine-id"), machine.guest_machine_id);
      assert.doesNotMatch(await world.print(machine, "dmesg | grep -i 'ext4.*error' || true"), /error/i);
    }
    // What two machines write from now on, nobody else sees.
    await world.ssh(machines[0], "echo mine > /root/private && sync");
    assert.equal(await world.succeeds(machines[1], "test -e /root/private"), false);
    assert.equal(await world.succeeds(source, "test -e /root/private"), false);
  });
});
