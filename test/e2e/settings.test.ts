import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { assertConfined } from "../support/confinement.ts";
import { type Answer, request } from "../support/request.ts";
import { inWorld } from "../support/world.ts";

const MIB = 1024 * 1024;

const OPTIONS = {
  rate_limits: {
    disk: { bandwidth: { size: 64 * MIB, refill_time_ms: 1000, one_time_burst: 16 * MIB } },
    network_rx: { ops: { size: 5000, refill_time_ms: 500 } },
    network_tx: {
      bandwidth: { size: 8 * MIB, refill_time_ms: 100 },
      ops: { size: 4000, refill_time_ms: 100 },
    },
  },
  track_dirty_pages: true,
  smt: false,
  huge_pages: "None",
  boot_args: "our.flag=1 other.flag",
} as const;

/** What the VMM of a machine answers for itself, over the socket in its jail. */
async function askVmm({ vmm }: Machine, path: string): Promise<Answer["body"]> {
  return (await request(`/proc/${vmm?.pid}/root/run/api.sock`, "GET", path)).body;
}

test("what a request says of the hardware is what the VMM was told, what the guest sees and what the daemon answers", async (t) => {
  await inWorld(async (world) => {
    const machine = await world.create("one", OPTIONS);

    await t.test("the daemon tells all of it", async () => {
      const { rate_limits, track_dirty_pages, smt, huge_pages, boot_args } = machine.hardware;
      assert.deepEqual({ rate_limits, track_dirty_pages, smt, huge_pages, boot_args }, OPTIONS);
      const { io_engine, cache_type, pci } = machine.hardware;
      assert.deepEqual(
        { io_engine, cache_type, pci },
        { io_engine: "Sync", cache_type: "Writeback", pci: false },
      );
      const { vmm } = machine;
      assert.ok(vmm !== undefined);
      assert.deepEqual([vmm.new_pid_ns, vmm.seccomp], [true, "default"]);
      assert.ok(vmm.limits.fsize_bytes >= machine.storage_bytes && vmm.limits.no_file > 0);
      assert.ok(vmm.cgroup.memory_bytes > machine.memory_mib * MIB);
      assert.deepEqual((await world.get("/machines/one")).body.machine, machine);
      await assertConfined(world.rootDir, machine);
    });

    await t.test("the VMM was told all of it", async () => {
      const config = await askVmm(machine, "/vm/config");
      const [root, seed] = config.drives;
      assert.deepEqual(
        [root.cache_type, root.io_engine, root.is_read_only, seed.is_read_only],
        ["Writeback", "Sync", false, true],
      );
      const { disk, network_rx, network_tx } = OPTIONS.rate_limits;
      const bucket = (given: { size: number; refill_time_ms: number; one_time_burst?: number }) => [
        given.size,
        given.refill_time_ms,
        given.one_time_burst ?? null,
      ];
      const told = (found: { size: number; refill_time: number; one_time_burst?: number | null }) => [
        found.size,
        found.refill_time,
        found.one_time_burst ?? null,
      ];
      assert.deepEqual(told(root.rate_limiter.bandwidth), bucket(disk.bandwidth));
      const [nic] = config["network-interfaces"];
      assert.deepEqual(told(nic.rx_rate_limiter.ops), bucket(network_rx.ops));
      assert.deepEqual(told(nic.tx_rate_limiter.bandwidth), bucket(network_tx.bandwidth));
      assert.deepEqual(told(nic.tx_rate_limiter.ops), bucket(network_tx.ops));
      assert.equal(config["machine-config"].track_dirty_pages, true);
      assert.equal(config["mmds-config"].version, "V2");
      assert.ok(config.entropy !== undefined && config.entropy !== null, "the guest has an entropy device");
    });

    await t.test("the metadata service has who the guest is, and no secret", async () => {
      const data = JSON.stringify(await askVmm(machine, "/mmds"));
      for (const fact of [
        machine.hostname,
        machine.guest_machine_id,
        world.key.publicLine.split(" ")[1] ?? "",
      ])
        assert.ok(data.includes(fact), `${fact} is missing in ${data}`);
      assert.doesNotMatch(data, /PRIVATE KEY/);
    });

    await t.test("the guest's kernel was given the arguments", async () => {
      assert.match(await world.print(machine, "cat /proc/cmdline"), / our\.flag=1 other\.flag( |$)/);
    });

    await t.test("a guest that floods its console fills nothing", async () => {
      await world.ssh(
        machine,
        "dd if=/dev/zero bs=64k count=160 2>/dev/null | tr '\\0' x | timeout 5 tee /dev/console >/dev/null; true",
        {
          timeoutMs: 90_000,
          okCodes: [0, 124],
        },
      );
      const { blocks } = statSync(join(world.rootDir, "machines/one/console.log"));
      assert.ok(blocks * 512 < 8 * MIB, `the console takes up ${Math.round((blocks * 512) / MIB)} MiB`);
      assert.equal(await world.print(machine, "echo alive"), "alive");
    });

    await t.test("the disk of the running machine grows", async () => {
      const storage_bytes = machine.storage_bytes + 256 * MIB;
      const grown = await world.post("/machines/one/resize", { storage_bytes });
      assert.deepEqual(
        [grown.status, grown.body.machine?.storage_bytes],
        [200, storage_bytes],
        JSON.stringify(grown.body),
      );
      const seen = async (): Promise<number> =>
        Number(await world.print(machine, "cat /sys/block/vda/size")) * 512;
      assert.equal(await seen(), storage_bytes);
      const memory = await world.post("/machines/one/resize", { memory_mib: 256 });
      assert.deepEqual([memory.status, memory.body.code], [409, "wrong_phase"]);
      await world.assertMatchesState();
    });

    await t.test("what cannot be is refused with the field's name, and touches nothing", async () => {
      const refusals: Readonly<Record<string, object>> = {
        boot_args: { boot_args: "root=/dev/vdc" },
        rate_limits: { rate_limits: { disk: { bandwidth: { size: 0, refill_time_ms: 100 } } } },
        cpu_template: { cpu_template: "T9" },
        huge_pages: { huge_pages: "2M", memory_mib: 129 },
      };
      for (const [field, body] of Object.entries(refusals)) {
        const refused = await world.post("/machines", { machine_id: "two", ...body });
        assert.equal(refused.status, 400, `${field}: ${JSON.stringify(refused.body)}`);
        assert.match(JSON.stringify(refused.body), new RegExp(field), "the field is named");
      }
      assert.equal((await world.get("/machines")).body.machines.length, 1);
      await world.assertMatchesState();
    });
  });
});
