import assert from "node:assert/strict";
import { test } from "node:test";
import { inWorld } from "../support/world.ts";

test("machines outlive the daemon: a restart, a kill, and a second daemon on the same root", async () => {
  await inWorld(async (world) => {
    const machine = await world.create("one");
    const stopped = await world.create("two");
    assert.equal((await world.post("/machines/two/stop")).status, 204);
    await world.ssh(machine, "echo $$ > /run/still-here; sleep 600 >/dev/null 2>&1 & echo $! > /run/sleeper");
    const sleeper = await world.print(machine, "cat /run/sleeper");

    await assert.rejects(
      world.playground.host.run(["env", `FIRECRACKER_HOST_ROOT_DIR=${world.rootDir}`, "./computer-host"]),
      /another daemon runs/,
    );

    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const code = await world.endDaemon(signal);
      assert.equal(code, signal === "SIGTERM" ? 0 : null);
      assert.equal(await world.print(machine, "hostname"), "one", `the guest runs on after ${signal}`);
      await world.startDaemon();
      const after = (await world.get("/machines/one")).body.machine;
      assert.deepEqual(after, machine, "the machine is what it was, its VMM's pid too");
      assert.equal((await world.get("/machines/two")).body.machine.phase, "stopped");
      assert.ok(await world.succeeds(machine, `kill -0 ${sleeper}`), "its processes were not disturbed");
      await world.assertMatchesState();
    }
    // Everything still works on a machine that was taken over.
    assert.equal((await world.post("/machines/one/snapshots", { snapshot_id: "s" })).status, 201);
    assert.equal((await world.post("/machines/one/stop")).status, 204);
    assert.notEqual(stopped.guest_machine_id, machine.guest_machine_id);
  });
});

test("a daemon killed in mid-create undoes the create at its next start", async () => {
  await inWorld(async (world) => {
    const creating = world.post("/machines", { machine_id: "one", memory_mib: 192 });
    const broken = assert.rejects(creating);
    for (let phase = ""; phase !== "starting"; ) {
      const { status, body } = await world.get("/machines/one");
      phase = status === 200 ? body.machine.phase : "";
    }
    await world.endDaemon("SIGKILL");
    await broken;
    await world.startDaemon();
    assert.equal((await world.get("/machines/one")).status, 404);
    await world.assertMatchesState();
    const machine = await world.create("one");
    assert.equal(await world.print(machine, "hostname"), "one");
  });
});

test("a VMM that died while the daemon was away is noted at the next start", async () => {
  await inWorld(async (world) => {
    const machine = await world.create("one");
    await world.endDaemon("SIGKILL");
    process.kill(machine.vmm?.pid ?? 0, "SIGKILL");
    await world.startDaemon();
    assert.equal((await world.get("/machines/one")).body.machine.phase, "failed");
    await world.assertMatchesState();
  });
});
