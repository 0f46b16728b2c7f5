import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { inWorld, type World } from "../support/world.ts";

const MIB = 1024 * 1024;
/** A console lets a burst of a mebibyte through and then a trickle; its file is cut at four. */
const CONSOLE_LIMIT_BYTES = 5 * MIB;

/** Waits until the machine has left the phase `running`, for at most a minute, and returns it. */
async function untilEnded(world: World, id: string): Promise<Machine> {
  for (let attempt = 0; attempt < 300; attempt += 1) {
    const { machine } = (await world.get(`/machines/${id}`)).body;
    if (machine.phase !== "running") return machine;
    await sleep(200);
  }
  throw new Error(`machine ${id} goes on running`);
}

/** Has the guest run a command once the connection is closed: a guest that dies with one open keeps its client waiting. */
async function runLater(world: World, machine: Machine, command: string): Promise<void> {
  await world.ssh(machine, `nohup sh -c "sleep 1; ${command}" >/dev/null 2>&1 </dev/null &`);
}

async function startAgain(world: World, id: string): Promise<Machine> {
  const { status, body } = await world.post(`/machines/${id}/start`);
  assert.equal(status, 200, JSON.stringify(body));
  return body.machine;
}

test("a guest that misbehaves harms itself alone", async (t) => {
  await inWorld(async (world) => {
    const [bad, good] = await Promise.all([world.create("bad"), world.create("good")]);
    const assertOthersFine = async (): Promise<void> => {
      assert.equal(await world.print(good, "hostname"), "good");
      assert.equal((await world.get("/machines/good")).body.machine.phase, "running");
      await world.assertMatchesState();
    };

    await t.test("it floods its console and fills its disk", async () => {
      const filled = await world.print(
        bad,
        "timeout 5 sh -c 'while :; do echo flood-flood-flood-flood-flood >/dev/ttyS0; done'; dd if=/dev/zero of=/fill bs=1M 2>&1 | grep -o 'No space left'; rm /fill; hostname",
      );
      assert.equal(filled, "No space left\nbad");
      const console = statSync(join(world.rootDir, "machines/bad/console.log"));
      assert.ok(console.blocks * 512 <= CONSOLE_LIMIT_BYTES, `the console has ${console.blocks * 512} bytes`);
      assert.match(
        readFileSync(join(world.rootDir, "machines/bad/console.log"), "latin1"),
        /flood-flood/,
        "the flood came that far",
      );
      await assertOthersFine();
    });

    await t.test("its kernel panics: failed, with the panic and the console's end", async () => {
      await runLater(world, bad, "sync; echo c >/proc/sysrq-trigger");
      const machine = await untilEnded(world, "bad");
      assert.equal(machine.phase, "failed");
      assert.equal(machine.ended?.how, "panic");
      assert.match(machine.ended?.console_tail ?? "", /Kernel panic/);
      assert.match(machine.error ?? "", /panicked/);
      await assertOthersFine();
    });

    await t.test("it uses up its memory and its processes: its own kernel deals with that", async () => {
      const machine = await startAgain(world, "bad");
      assert.ok(machine.vmm);
      const pid = machine.vmm.pid;
      // What the shell holds in a variable is memory; a child in a minute's sleep is a process.
      await world
        .ssh(machine, "x=$(head -c 500M /dev/zero | tr '\\0' x); echo ${#x}", { timeoutMs: 60_000 })
        .catch(() => undefined);
      assert.equal(
        await world.print(
          machine,
          "for i in $(seq 150); do sleep 60 >/dev/null 2>&1 </dev/null & done; hostname",
        ),
        "bad",
      );
      assert.match(readFileSync(`/proc/${pid}/status`, "latin1"), /^State:\s+[RSD]/m, "its VMM lives");
      const resident = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]);
      assert.ok(resident < 1024 * 1024, `its VMM holds ${resident} KiB`);
      await assertOthersFine();
    });

    await t.test("it reboots: that is the end of it, and no failure", async () => {
      const { machine } = (await world.get("/machines/bad")).body;
      await runLater(world, machine, "reboot -f");
      const ended = await untilEnded(world, "bad");
      assert.deepEqual([ended.phase, ended.ended?.how, ended.error], ["stopped", "reset", undefined]);
      await assertOthersFine();
    });

    await t.test("it is deleted as any other", async () => {
      assert.equal((await world.delete("/machines/bad")).status, 204);
      await assertOthersFine();
      await world.assertAuditClean();
    });
  });
});
