import assert from "node:assert/strict";
import { totalmem } from "node:os";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { assertCountsOn, countIn, startCounter } from "../support/counter.ts";
import { inWorld } from "../support/world.ts";

/** Room for some ten machines, so that a fork of a few more than that is too many. */
const OVERCOMMIT = Math.max(0.1, (2000 * 1024 * 1024) / totalmem()).toFixed(2);

test("a running machine is forked: its children go on where it stood, all of them or none", async (t) => {
  await inWorld(
    async (world) => {
      const source = await world.create("source");
      await startCounter(world, source);
      const guest_config = { authorized_keys: [world.key.publicLine] };
      const several = { count: 3, id_prefix: "kid-", guest_config };
      let kids: Machine[] = [];

      await t.test("three children at once, each another machine with the same process", async () => {
        const before = await countIn(world, source);
        const answer = await world.post("/machines/source/fork", several);
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        kids = answer.body.machines;
        assert.deepEqual(
          kids.map(({ id }) => id),
          ["kid-1", "kid-2", "kid-3"],
        );
        const all = [source, ...kids];
        const counters = await Promise.all(all.map((machine) => world.print(machine, "cat /run/counter")));
        assert.equal(new Set(counters).size, 1, "the same process in each");
        for (const field of ["guest_machine_id", "guest_ssh_host_public_key", "runtime_host"] as const)
          assert.equal(new Set(all.map((machine) => machine[field])).size, 4, field);
        for (const kid of kids) {
          assert.equal(await world.print(kid, "hostname"), kid.id);
          assert.ok((await countIn(world, kid)) >= before);
          assert.ok(
            kid.receipt?.every(({ done }) => done),
            JSON.stringify(kid.receipt),
          );
        }
        for (const machine of all) await assertCountsOn(world, machine);
        await world.assertMatchesState();
      });

      await t.test("the same fork again is answered with the same children", async () => {
        const again = await world.post("/machines/source/fork", several);
        assert.deepEqual([again.status, again.body.machines], [200, kids]);
      });

      await t.test("when one child cannot be, none is, and the source runs on", async () => {
        const clash = await world.post("/machines/source/fork", {
          count: 4,
          id_prefix: "kid-",
          guest_config,
        });
        assert.deepEqual(
          [clash.status, clash.body.code],
          [409, "machine_exists"],
          JSON.stringify(clash.body),
        );
        const { limit_mib } = (await world.get("/health")).body.memory;
        const count = Math.floor(limit_mib / source.memory_mib) + 1;
        const huge = await world.post("/machines/source/fork", { count, id_prefix: "many-" });
        assert.deepEqual([huge.status, huge.body.code], [503, "host_full"], JSON.stringify(huge.body));
        const both = await world.post("/machines/source/fork", {
          machine_id: "one",
          count: 2,
          id_prefix: "two-",
        });
        assert.equal(both.status, 400, JSON.stringify(both.body));
        const ids = (await world.get("/machines")).body.machines.map(({ id }: Machine) => id).sort();
        assert.deepEqual(ids, ["kid-1", "kid-2", "kid-3", "source"]);
        await assertCountsOn(world, source);
        await world.assertMatchesState();
      });

      await t.test("a child by its name, of a child", async () => {
        const answer = await world.post("/machines/kid-1/fork", { machine_id: "grandchild", guest_config });
        assert.equal(answer.status, 201, JSON.stringify(answer.body));
        const [grandchild] = answer.body.machines;
        await assertCountsOn(world, grandchild);
        assert.equal(await world.print(grandchild, "hostname"), "grandchild");
        await world.assertMatchesState();
      });
    },
    { env: { FIRECRACKER_HOST_MEMORY_OVERCOMMIT: OVERCOMMIT } },
  );
});
