import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Machine, RECEIPT_ITEMS } from "../../src/contract/machine.ts";
import { assertCountsOn, countIn, startCounter } from "../support/counter.ts";
import { PLAYGROUND } from "../support/playground.ts";
import { inWorld, type World } from "../support/world.ts";

const { public_address } = PLAYGROUND;

async function restore(world: World, snapshot: string, machine_id: string, more: object = {}) {
  return await world.post(`/snapshots/${snapshot}/restore`, {
    machine_id,
    guest_config: { authorized_keys: [world.key.publicLine] },
    ...more,
  });
}

async function woken(world: World, snapshot: string, machine_id: string): Promise<Machine> {
  const answer = await restore(world, snapshot, machine_id);
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  return answer.body.machine as Machine;
}

/** What distinguishes one guest from another, as seen from inside it. */
async function selfOf(world: World, machine: Machine): Promise<Record<string, string>> {
  const text = await world.print(
    machine,
    [
      "hostname",
      "cat /etc/machine-id",
      "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub",
      "head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'",
      "echo",
      "cat /proc/sys/kernel/random/uuid",
      "cat /run/counter",
      "date +%s",
    ].join("; "),
  );
  const [hostname = "", machine_id = "", host_key = "", random = "", uuid = "", counter = "", date = ""] =
    text.split("\n");
  return { hostname, machine_id, host_key, random, uuid, counter, date };
}

/** True when the guest reaches the outside by a connection of its own. */
const reachesOutside = (world: World, machine: Machine): Promise<boolean> =>
  world.succeeds(
    machine,
    `timeout 30 bash -c 'exec 3<>/dev/tcp/${public_address}/443 && read -r line <&3 && [ -n "$line" ]'`,
  );

test("a guest that is frozen with its memory wakes as two others at once, each another and both where it stood", async (t) => {
  await inWorld(async (world) => {
    const source = await world.create("source", { track_dirty_pages: true });
    await startCounter(world, source);
    // In memory only: a file in a tmpfs, and a connection to the outside that an echoing server holds open.
    await world.ssh(
      source,
      `echo remember > /run/note; nohup bash -c 'exec 3<>/dev/tcp/${public_address}/443; read -r line <&3; echo open > /run/connection; read -r line <&3; echo ended > /run/connection' >/dev/null 2>&1 &`,
    );
    for (let attempt = 0; (await world.print(source, "cat /run/connection || true")) !== "open"; attempt += 1)
      assert.ok(attempt < 50, "the connection to the outside did not open");
    const before = await countIn(world, source);
    const taken = await world.post("/machines/source/snapshots", { snapshot_id: "frozen", memory: true });
    const frozenAt = Date.now();
    assert.equal(taken.status, 201, JSON.stringify(taken.body));
    let twins: Machine[] = [];

    await t.test(
      "the snapshot holds memory, state and disk of one instant, and the source runs on",
      async () => {
        const { snapshot, artifacts } = taken.body;
        assert.deepEqual(
          [snapshot.memory, snapshot.memory_mib, snapshot.consistency],
          ["full", 192, "synced"],
        );
        assert.ok(snapshot.paused_ms > 0 && snapshot.paused_ms < 60_000, `${snapshot.paused_ms} ms`);
        const kinds = artifacts.map(({ kind }: { kind: string }) => kind).sort();
        assert.deepEqual(kinds, ["disk", "manifest", "memory", "vmstate"]);
        for (const { sha256_hex } of artifacts) assert.match(sha256_hex, /^[0-9a-f]{64}$/);
        await assertCountsOn(world, source);
        assert.equal(await world.print(source, "cat /run/connection"), "open");
        const verdict = await world.get("/snapshots/frozen/compatibility");
        assert.deepEqual(verdict.body, { snapshot_id: "frozen", restorable: "live", reasons: [] });
        await world.assertMatchesState();
      },
    );

    await t.test("two wake at once, and are told what was made their own", async () => {
      // Long enough that a clock which was not stepped would show it.
      await sleep(Math.max(0, frozenAt + 6000 - Date.now()));
      twins = await Promise.all(["left", "right"].map((id) => woken(world, "frozen", id)));
      for (const { id, receipt, snapshot_id, phase } of twins) {
        assert.deepEqual([snapshot_id, phase], ["frozen", "running"]);
        assert.deepEqual(
          receipt?.map(({ item, done }) => [item, done]),
          RECEIPT_ITEMS.map((item) => [item, true]),
          `${id}: ${JSON.stringify(receipt)}`,
        );
      }
      await world.assertMatchesState();
    });

    await t.test(
      "they differ from each other and from the source in all that must differ, and in no more",
      async () => {
        const all = [source, ...twins];
        const selves = await Promise.all(all.map((machine) => selfOf(world, machine)));
        for (const fact of ["hostname", "machine_id", "host_key", "random", "uuid"])
          assert.equal(new Set(selves.map((self) => self[fact])).size, 3, fact);
        assert.equal(new Set(selves.map(({ counter }) => counter)).size, 1, "the same process in each");
        all.forEach((machine, index) => {
          const self = selves[index];
          assert.deepEqual(
            [self?.["hostname"], self?.["machine_id"], self?.["host_key"]],
            [machine.hostname, machine.guest_machine_id, machine.guest_ssh_host_public_key],
          );
          const late = Math.abs(Number(self?.["date"]) - Date.now() / 1000);
          assert.ok(late < 5, `the clock of ${machine.id} is ${late} s off`);
        });
        for (const twin of twins) {
          assert.equal(await world.print(twin, "cat /run/note"), "remember");
          assert.ok((await countIn(world, twin)) >= before, "it goes on from where the source stood");
          await assertCountsOn(world, twin);
        }
      },
    );

    await t.test("each reaches the outside by itself; the connection of the past has ended", async () => {
      for (const twin of twins) {
        assert.equal(await reachesOutside(world, twin), true);
        // Either side may notice: whoever reads from a connection that was reset is told.
        assert.equal(
          await world.print(
            twin,
            "for i in $(seq 60); do [ $(cat /run/connection) = ended ] && break; sleep 0.25; done; cat /run/connection",
          ),
          "ended",
        );
      }
      assert.equal(await world.print(source, "cat /run/connection"), "open", "the source's own goes on");
    });

    await t.test("a request that cannot be met is refused before anything is touched", async () => {
      const other = await restore(world, "frozen", "other", { memory_mib: 256 });
      assert.deepEqual(
        [other.status, other.body.code],
        [422, "snapshot_incompatible"],
        JSON.stringify(other.body),
      );
      assert.equal((await world.post("/machines/source/snapshots", { snapshot_id: "disk" })).status, 201);
      const disk = await restore(world, "disk", "other", { memory: true });
      assert.deepEqual(
        [disk.status, disk.body.code],
        [422, "snapshot_incompatible"],
        JSON.stringify(disk.body),
      );
      await world.assertMatchesState();
    });

    await t.test(
      "a daemon that is killed finds the woken again; they stop and start as what they are",
      async () => {
        await world.endDaemon("SIGKILL");
        await world.startDaemon();
        for (const twin of twins) {
          assert.deepEqual((await world.get(`/machines/${twin.id}`)).body.machine, twin);
          await assertCountsOn(world, twin);
        }
        assert.equal((await world.post("/machines/left/stop")).status, 204);
        const started = await world.post("/machines/left/start");
        assert.equal(started.status, 200, JSON.stringify(started.body));
        const self = await selfOf(world, started.body.machine);
        assert.deepEqual(
          [self["hostname"], self["machine_id"], self["host_key"]],
          [twins[0]?.hostname, twins[0]?.guest_machine_id, twins[0]?.guest_ssh_host_public_key],
        );
        await world.assertMatchesState();
      },
    );

    await t.test("a diff stands on the full one, and alone once that is deleted", async () => {
      await world.ssh(source, "echo later > /run/note");
      const diff = await world.post("/machines/source/snapshots", { snapshot_id: "later", memory: "diff" });
      assert.equal(diff.status, 201, JSON.stringify(diff.body));
      assert.equal(diff.body.snapshot.memory, "diff");
      assert.equal((await world.delete("/snapshots/frozen")).status, 204);
      const third = await woken(world, "later", "third");
      assert.equal(await world.print(third, "cat /run/note"), "later");
      await assertCountsOn(world, third);
      const [right] = twins.slice(1);
      assert.ok(right !== undefined);
      await assertCountsOn(world, right);
      const cold = await restore(world, "later", "cold", { memory: false });
      assert.equal(cold.status, 201, JSON.stringify(cold.body));
      assert.equal(cold.body.machine.receipt, undefined);
      assert.equal(await world.succeeds(cold.body.machine, "test -e /run/note"), false, "it booted");
      await world.assertMatchesState();
    });
  });
});
