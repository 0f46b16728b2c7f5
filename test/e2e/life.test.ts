import assert from "node:assert/strict";
import { test } from "node:test";
import { inWorld } from "../support/world.ts";

test("a machine from create to delete: every call, with a real guest behind it", async () => {
  await inWorld(async (world) => {
    const machine = await world.create("one", {
      vcpus: 1,
      memory_mib: 256,
      guest_config: { hostname: "uno.example" },
    });
    assert.equal(machine.phase, "running");

    // Who the guest is, as seen from inside it.
    assert.equal(await world.print(machine, "hostname"), "uno.example");
    assert.equal(await world.print(machine, "cat /etc/machine-id"), machine.guest_machine_id);
    assert.equal(
      (await world.print(machine, "cat /etc/ssh/ssh_host_*_key.pub")).split(" ").slice(0, 2).join(" "),
      machine.guest_ssh_host_public_key?.split(" ").slice(0, 2).join(" "),
    );
    assert.match(await world.print(machine, "cat /etc/hosts"), /uno\.example/);
    assert.match(
      await world.print(machine, "cat /root/.ssh/authorized_keys"),
      new RegExp(world.key.publicLine.replace(/[+/.]/g, "\\$&")),
    );
    const mebibytes = Number(
      await world.print(machine, "awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo"),
    );
    assert.ok(mebibytes > 190 && mebibytes <= 256, `the guest has ${mebibytes} MiB`);
    assert.equal(await world.print(machine, "nproc"), "1");

    // The same request again, another body, the lists.
    const again = await world.post("/machines", {
      machine_id: "one",
      vcpus: 1,
      memory_mib: 256,
      guest_config: { authorized_keys: [world.key.publicLine], hostname: "uno.example" },
    });
    assert.deepEqual([again.status, again.body.machine], [200, machine]);
    const other = await world.post("/machines", { machine_id: "one", memory_mib: 512 });
    assert.deepEqual([other.status, other.body.code], [409, "machine_exists"]);
    assert.deepEqual((await world.get("/machines")).body, { machines: [machine] });
    assert.deepEqual((await world.get("/machines/one")).body, { machine });
    await world.assertMatchesState();
    await world.assertAuditClean();

    // A file, a snapshot of the running machine, a second machine from it.
    await world.ssh(machine, "echo remember > /root/note");
    const snapshot = await world.post("/machines/one/snapshots", { snapshot_id: "note" });
    assert.equal(snapshot.status, 201, JSON.stringify(snapshot.body));
    assert.equal(snapshot.body.snapshot.consistency, "synced");
    assert.match(snapshot.body.artifacts[0].sha256_hex, /^[0-9a-f]{64}$/);
    assert.equal(await world.print(machine, "cat /root/note"), "remember");
    const answer = await world.post("/snapshots/note/restore", {
      machine_id: "two",
      memory_mib: 192,
      storage_bytes: 1024 * 1024 * 1024,
      guest_config: { authorized_keys: [world.key.publicLine] },
    });
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    const restored = answer.body.machine;
    assert.equal(await world.print(restored, "cat /root/note"), "remember");
    assert.equal(await world.print(restored, "hostname"), "two");
    assert.equal(await world.print(restored, "cat /etc/machine-id"), restored.guest_machine_id);
    assert.notEqual(restored.guest_machine_id, machine.guest_machine_id);
    assert.notEqual(restored.guest_ssh_host_public_key, machine.guest_ssh_host_public_key);
    assert.ok(
      Number(await world.print(restored, "df -k / | awk 'NR==2 {print $2}'")) > 900_000,
      "the filesystem grew with its disk",
    );
    await world.assertMatchesState();

    // Deleting the source and the snapshot harms nobody.
    assert.equal((await world.delete("/machines/one")).status, 204);
    assert.equal((await world.get("/machines/one/snapshots")).body.snapshots.length, 1);
    assert.equal((await world.delete("/snapshots/note")).status, 204);
    assert.equal(await world.print(restored, "cat /root/note"), "remember");
    await world.assertMatchesState();

    // A stop keeps what was synced; the disk is still there to be kept.
    await world.ssh(restored, "echo kept > /root/kept && sync");
    assert.equal((await world.post("/machines/two/stop")).status, 204);
    const stopped = (await world.get("/machines/two")).body.machine;
    assert.equal(stopped.phase, "stopped");
    assert.equal(stopped.runtime_host, undefined);
    await world.assertMatchesState();
    const cold = await world.post("/machines/two/snapshots", { snapshot_id: "cold" });
    assert.deepEqual([cold.status, cold.body.snapshot.consistency], [201, "synced"]);
    const third = await world.post("/snapshots/cold/restore", {
      machine_id: "three",
      memory_mib: 192,
      guest_config: { authorized_keys: [world.key.publicLine] },
    });
    assert.equal(third.status, 201, JSON.stringify(third.body));
    assert.equal(await world.print(third.body.machine, "cat /root/kept"), "kept");
    const health = await world.get("/health");
    assert.equal(health.body.ok, true);
    assert.match(String(answer.headers["server-timing"]), /ready;dur=/);
  });
});
