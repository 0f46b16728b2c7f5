import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { identifyProcess } from "../../src/system/process.ts";
import { inWorld, type World } from "../support/world.ts";

/** Waits until the machine is in the phase, for at most 20 seconds. */
async function untilPhase(world: World, id: string, phase: string): Promise<Record<string, unknown>> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const { status, body } = await world.get(`/machines/${id}`);
    if (status === 200 && body.machine.phase === phase) return body.machine;
    await sleep(100);
  }
  throw new Error(`machine ${id} did not become ${phase}`);
}

test("what goes wrong is answered clearly, and undone wholly", async (t) => {
  await inWorld(
    async (world) => {
      await t.test("an image that is not there names what to run", async () => {
        const answer = await world.post("/machines", { machine_id: "a", image: "none-such" });
        assert.deepEqual([answer.status, answer.body.code], [422, "image_not_found"]);
        assert.match(answer.body.error, /make images/);
      });

      await t.test(
        "a guest that does not get ready in time is 504 with its console, and nothing of it stays",
        async () => {
          const answer = await world.post("/machines", {
            machine_id: "slow",
            memory_mib: 64,
            storage_bytes: 1024 ** 3,
          });
          assert.deepEqual(
            [answer.status, answer.body.code],
            [504, "guest_not_ready"],
            JSON.stringify(answer.body),
          );
          assert.equal(typeof answer.body.details.console_tail, "string");
          assert.equal((await world.get("/machines/slow")).status, 404);
          assert.deepEqual(readdirSync(join(world.rootDir, "machines")), []);
          await world.assertMatchesState();
        },
      );

      await t.test("a delete ends a create that is under way", async () => {
        const creating = world.post("/machines", { machine_id: "cut", memory_mib: 192 });
        await untilPhase(world, "cut", "starting");
        assert.equal((await world.delete("/machines/cut")).status, 204);
        const answer = await creating;
        assert.deepEqual([answer.status, answer.body.code], [409, "operation_cancelled"]);
        await world.assertMatchesState();
      });
    },
    { env: { FIRECRACKER_HOST_READY_TIMEOUT: "1s" } },
  );
});

test("a client that hangs up changes nothing, and a VMM that is killed leaves a failed machine that can be deleted", async () => {
  await inWorld(async (world) => {
    const hangUp = new AbortController();
    const creating = world.post("/machines", { machine_id: "one", memory_mib: 192 }, hangUp.signal);
    const broken = assert.rejects(creating);
    await untilPhase(world, "one", "starting");
    hangUp.abort();
    await broken;
    const machine = await untilPhase(world, "one", "running");
    const { pid } = machine["vmm"] as { pid: number };
    process.kill(pid, "SIGKILL");
    const failed = await untilPhase(world, "one", "failed");
    assert.match(String(failed["error"]), /ended unexpectedly/);
    assert.equal((failed["ended"] as { how: string }).how, "killed");
    assert.equal(failed["runtime_host"], undefined);
    assert.equal(identifyProcess(pid), undefined);
    await world.assertMatchesState();
    const snapshot = await world.post("/machines/one/snapshots", { snapshot_id: "s" });
    assert.deepEqual([snapshot.status, snapshot.body.code], [409, "wrong_phase"]);
    assert.equal((await world.post("/machines/one/stop")).status, 204);
  });
});

test("a guest that reboots ends its machine, which is stopped then, with its disk", async () => {
  await inWorld(async (world) => {
    const machine = await world.create("one");
    await world.ssh(machine, "echo kept > /root/kept; sync; reboot", { okCodes: [0, 255] });
    const { ended } = await untilPhase(world, "one", "stopped");
    assert.equal((ended as { how: string }).how, "reset");
    await world.assertMatchesState();
    assert.equal((await world.post("/machines/one/snapshots", { snapshot_id: "s" })).status, 201);
  });
});

test("a machine that asks for it runs again when its VMM is killed, with its disk and identity", async () => {
  await inWorld(async (world) => {
    const before = await world.create("one", { restart: "on-failure" });
    await world.ssh(before, "echo kept > /root/kept; sync");
    process.kill(before.vmm?.pid ?? 0, "SIGKILL");
    await untilPhase(world, "one", "starting");
    const after = (await untilPhase(world, "one", "running")) as unknown as Machine;
    assert.deepEqual([after.restarts?.count, after.ended], [1, undefined]);
    assert.equal(await world.print(after, "cat /root/kept"), "kept");
    assert.equal(after.guest_ssh_host_public_key, before.guest_ssh_host_public_key);
    await world.assertMatchesState();
    await world.assertAuditClean();
  });
});
