import assert from "node:assert/strict";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { countIn, startCounter } from "../support/counter.ts";
import { inWorld, type World } from "../support/world.ts";

const MIB = 2 ** 20;

/** The machine that a call answers with. */
async function call(world: World, path: string, body?: object): Promise<Machine> {
  const answer = await world.post(path, body);
  assert.equal(answer.status, 200, `${path}: ${JSON.stringify(answer.body)}`);
  return answer.body.machine as Machine;
}

async function stop(world: World): Promise<void> {
  assert.equal((await world.post("/machines/one/stop")).status, 204);
  await world.assertMatchesState();
}

test("a machine that is stopped, started and resized is the same machine all along", async () => {
  await inWorld(async (world) => {
    const machine = await world.create("one");
    const hostKey = await world.print(machine, "cat /etc/ssh/ssh_host_ed25519_key.pub");
    await world.ssh(machine, "echo remember > /root/note; echo renamed > /etc/hostname; sync");
    await stop(world);
    const again = await call(world, "/machines/one/start");
    const { started_at: _started, vmm: oldVmm, ...same } = machine;
    const { started_at: _restarted, vmm, ...found } = again;
    assert.deepEqual(found, same, "its address is the same, too");
    assert.notEqual(vmm?.pid, oldVmm?.pid);
    assert.equal(await world.print(again, "cat /root/note"), "remember");
    assert.equal(await world.print(again, "hostname"), "renamed");
    assert.equal(await world.print(again, "cat /etc/machine-id"), machine.guest_machine_id);
    assert.equal(await world.print(again, "cat /etc/ssh/ssh_host_ed25519_key.pub"), hostKey);
    assert.deepEqual(await call(world, "/machines/one/start"), again);
    await world.assertMatchesState();

    const size = { memory_mib: 320, vcpus: 2, storage_bytes: 1024 * MIB };
    assert.equal((await world.post("/machines/one/resize", size)).body.code, "wrong_phase");
    await stop(world);
    const resized = await call(world, "/machines/one/resize", size);
    assert.deepEqual([resized.phase, resized.storage_bytes], ["stopped", size.storage_bytes]);
    assert.equal(
      (await world.post("/machines/one/resize", { storage_bytes: MIB })).body.code,
      "disk_too_small",
    );
    const larger = await call(world, "/machines/one/start");
    assert.equal(larger.runtime_host, machine.runtime_host);
    const memory = Number(await world.print(larger, "awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo"));
    assert.ok(memory > 240 && memory <= 320, `the guest has ${memory} MiB`);
    assert.equal(await world.print(larger, "nproc"), "2");
    assert.ok(
      Number(await world.print(larger, "df -k / | awk 'NR==2 {print $2}'")) > 900_000,
      "the filesystem grew with its disk",
    );
    assert.equal(await world.print(larger, "cat /root/note"), "remember");
    const report = await world.get("/storage/report");
    const [disk] = report.body.machines;
    assert.deepEqual([report.status, disk.id, disk.apparent_bytes], [200, "one", size.storage_bytes]);
    assert.ok(disk.used_bytes > MIB && disk.used_bytes < disk.apparent_bytes, JSON.stringify(disk));

    // A guest that does not come up any more: the start says why, and the machine is stopped as before.
    await world.ssh(larger, "mv /sbin/init /root/init; sync");
    await stop(world);
    const failed = await world.post("/machines/one/start");
    assert.deepEqual([failed.status, failed.body.code], [504, "guest_not_ready"]);
    assert.match(failed.body.details.console_tail, /no init at \/sbin\/init/);
    const left = (await world.get("/machines/one")).body.machine;
    assert.deepEqual(
      [left.phase, left.storage_bytes, left.runtime_host],
      ["stopped", size.storage_bytes, undefined],
    );
    await world.assertMatchesState();
  });
});

test("a paused guest stands still, also across a daemon's end, and goes on where it was", async () => {
  await inWorld(async (world) => {
    const machine = await world.create("one");
    await startCounter(world, machine);
    const count = (before?: string): Promise<number> => countIn(world, machine, before);
    const before = await count();
    const asked = performance.now();
    const paused = await call(world, "/machines/one/pause");
    const stood = performance.now();
    assert.deepEqual(paused, { ...machine, paused: true });
    assert.deepEqual(await call(world, "/machines/one/pause"), paused);
    await assert.rejects(world.ssh(machine, "true", { timeoutMs: 3000 }), "a paused guest answers nobody");

    await world.endDaemon("SIGKILL");
    await world.startDaemon();
    assert.deepEqual((await world.get("/machines/one")).body.machine, paused);
    await world.assertMatchesState();
    const snapshot = await world.post("/machines/one/snapshots", { snapshot_id: "frozen" });
    assert.deepEqual([snapshot.status, snapshot.body.snapshot?.consistency], [201, "crash"]);
    assert.deepEqual((await world.get("/machines/one")).body.machine, paused);

    const woken = performance.now();
    assert.deepEqual(await call(world, "/machines/one/resume"), machine);
    const after = await count();
    const ranMs = stood - asked + performance.now() - woken;
    assert.ok(woken - stood > 3000);
    assert.ok(after >= before && after - before <= ranMs / 100 + 20, `${before}, ${after} after ${ranMs} ms`);
    const later = await count("sleep 2");
    assert.ok(later > after, `it goes on: ${after}, ${later}`);

    // A paused machine is woken to shut down cleanly.
    await call(world, "/machines/one/pause");
    await stop(world);
    const cold = await world.post("/machines/one/snapshots", { snapshot_id: "cold" });
    assert.equal(cold.body.snapshot?.consistency, "synced");
  });
});
