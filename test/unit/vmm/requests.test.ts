import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { serial } from "../../../src/vmm/devices.ts";
import type { GuestHardware, LaunchSpec, Vmm } from "../../../src/vmm/types.ts";
import { HARDWARE, type StubRoom, stubRoom, thawing } from "../../support/stub-vmm/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: a jail is made of namespaces";
const MIB = 1024 * 1024;

/** What the VMM was asked since its launch: calls in order, and their bodies by call. */
async function asked(room: StubRoom, spec: LaunchSpec) {
  const requests = (await room.logOf(spec))
    .trim()
    .split("\n")
    .map((line) => {
      const [, method = "", path = "", body = ""] = /^(\S+) (\S+) (.*)$/.exec(line) ?? [];
      return { call: `${method} ${path}`, body: body === "" ? undefined : (JSON.parse(body) as unknown) };
    })
    .filter(({ call }) => call !== "GET /");
  return {
    calls: requests.map(({ call }) => call),
    bodies: Object.fromEntries(requests.map(({ call, body }) => [call, body])),
  };
}

/** Launches a VMM, and asks it what `use` asks. */
async function session(spec: LaunchSpec, room: StubRoom, use: (vmm: Vmm) => Promise<void>) {
  const vmm = await room.vmms.launch(spec);
  await use(vmm);
  const seen = await asked(room, spec);
  await room.vmms.release(vmm.ref);
  return seen;
}

describe("what a VMM is asked", { skip }, () => {
  test("for a boot: the console first, the start last", async () => {
    await using room = await stubRoom();
    const { calls, bodies } = await session(await room.spec(), room, async (vmm) => await vmm.boot(HARDWARE));
    assert.deepEqual(calls, [
      "PUT /serial",
      "PUT /machine-config",
      "PUT /boot-source",
      "PUT /drives/rootfs",
      "PUT /drives/seed",
      "PUT /network-interfaces/eth0",
      "PUT /mmds/config",
      "PUT /mmds",
      "PUT /entropy",
      "PUT /actions",
    ]);
    assert.deepEqual(bodies["PUT /serial"], {
      serial_out_path: "/console",
      rate_limiter: { size: 11_520, one_time_burst: MIB, refill_time: 1000 },
    });
    assert.deepEqual(bodies["PUT /machine-config"], {
      vcpu_count: 1,
      mem_size_mib: 128,
      smt: false,
      track_dirty_pages: true,
      huge_pages: "None",
    });
    assert.deepEqual(bodies["PUT /drives/rootfs"], {
      drive_id: "rootfs",
      path_on_host: "/disk",
      is_root_device: true,
      is_read_only: false,
      cache_type: "Writeback",
      io_engine: "Sync",
    });
    assert.deepEqual(bodies["PUT /drives/seed"], {
      drive_id: "seed",
      path_on_host: "/seed",
      is_root_device: false,
      is_read_only: true,
      io_engine: "Sync",
    });
    assert.deepEqual(bodies["PUT /network-interfaces/eth0"], {
      iface_id: "eth0",
      host_dev_name: "tap0",
      guest_mac: "06:00:ac:10:00:02",
    });
    assert.deepEqual(bodies["PUT /mmds/config"], {
      version: "V2",
      network_interfaces: ["eth0"],
      ipv4_address: "169.254.169.254",
    });
    assert.deepEqual(bodies["PUT /mmds"], HARDWARE.metadata);
  });

  test("for a boot with everything set, in Firecracker's terms", async () => {
    await using room = await stubRoom();
    const hardware: GuestHardware = {
      ...HARDWARE,
      options: {
        io_engine: "Async",
        pci: true,
        cpu_template: "T2A",
        huge_pages: "2M",
        smt: true,
        track_dirty_pages: false,
        rate_limits: {
          disk: {
            bandwidth: { size: 100, refill_time_ms: 10, one_time_burst: 7 },
            ops: { size: 5, refill_time_ms: 20 },
          },
          network_rx: { bandwidth: { size: 200, refill_time_ms: 30 } },
          network_tx: { ops: { size: 6, refill_time_ms: 40 } },
        },
      },
    };
    const { bodies } = await session(await room.spec(), room, async (vmm) => await vmm.boot(hardware));
    assert.deepEqual(bodies["PUT /machine-config"], {
      vcpu_count: 1,
      mem_size_mib: 128,
      smt: true,
      track_dirty_pages: false,
      huge_pages: "2M",
      cpu_template: "T2A",
    });
    const disk = bodies["PUT /drives/rootfs"] as Record<string, unknown>;
    assert.equal(disk["io_engine"], "Async");
    assert.deepEqual(disk["rate_limiter"], {
      bandwidth: { size: 100, refill_time: 10, one_time_burst: 7 },
      ops: { size: 5, refill_time: 20 },
    });
    const network = bodies["PUT /network-interfaces/eth0"] as Record<string, unknown>;
    assert.deepEqual(network["rx_rate_limiter"], { bandwidth: { size: 200, refill_time: 30 } });
    assert.deepEqual(network["tx_rate_limiter"], { ops: { size: 6, refill_time: 40 } });
  });

  test("for a save, a look at the disk, and a load", async () => {
    await using room = await stubRoom();
    const target = await room.target();
    const source = await session(await room.spec(), room, async (vmm) => {
      await vmm.boot(HARDWARE);
      await vmm.pause();
      await vmm.save(target, HARDWARE.memory_mib);
      await vmm.diskGrew();
    });
    assert.deepEqual(source.bodies["PUT /snapshot/create"], {
      snapshot_type: "Full",
      snapshot_path: "/save-state",
      mem_file_path: "/save-memory",
    });
    assert.deepEqual(source.calls.slice(-2), ["GET /vm/config", "PATCH /drives/rootfs"]);
    const regrown = { drive_id: "rootfs", path_on_host: "/disk" };
    assert.deepEqual(source.bodies["PATCH /drives/rootfs"], regrown);

    const { spec, frozen } = thawing(await room.spec(), target);
    const woken = await session(spec, room, async (vmm) => {
      await vmm.load(frozen);
      await vmm.save(await room.target(target), HARDWARE.memory_mib);
      await vmm.diskGrew();
    });
    assert.deepEqual(woken.calls.slice(0, 4), [
      "PUT /serial",
      "PUT /mmds",
      "PUT /snapshot/load",
      "PUT /snapshot/create",
    ]);
    assert.deepEqual(woken.bodies["PUT /serial"], source.bodies["PUT /serial"]);
    assert.deepEqual(woken.bodies["PUT /mmds"], HARDWARE.metadata);
    assert.deepEqual(woken.bodies["PUT /snapshot/load"], {
      snapshot_path: "/state",
      mem_backend: { backend_type: "File", backend_path: "/memory" },
      track_dirty_pages: true,
      resume_vm: false,
      network_overrides: [{ iface_id: "eth0", host_dev_name: "tap0" }],
    });
    assert.deepEqual(woken.bodies["PUT /snapshot/create"], {
      snapshot_type: "Diff",
      snapshot_path: "/save-state",
      mem_file_path: "/save-memory",
    });
    assert.deepEqual(woken.bodies["PATCH /drives/rootfs"], regrown, "the path came with the snapshot");
  });
});

describe("a VMM's command line", { skip }, () => {
  for (const pci of [false, true])
    test(
      pci ? "asks for a PCI bus when the launch does" : "has log, metrics and room for metadata",
      async () => {
        await using room = await stubRoom();
        const vmm = await room.vmms.launch({ ...(await room.spec()), pci });
        const line = (await readFile(`/proc/${vmm.ref.process.pid}/cmdline`, "utf8")).split("\0");
        const after = (flag: string): string | undefined => line[line.indexOf(flag) + 1];
        assert.equal(after("--log-path"), "/vmm.log");
        assert.equal(after("--metrics-path"), "/metrics");
        assert.equal(after("--http-api-max-payload-size"), String(2 * MIB));
        assert.equal(line.includes("--enable-pci"), pci);
        assert.ok(!line.includes("--no-seccomp"));
        await room.vmms.release(vmm.ref);
      },
    );

  test("is not made when the metrics are not among the jail's files", async () => {
    await using room = await stubRoom();
    const spec = { ...(await room.spec()), metrics_path: "/elsewhere" };
    await assert.rejects(room.vmms.launch(spec), { code: "internal", message: /\/elsewhere is not among/ });
    assert.deepEqual(await room.leftovers(), []);
  });
});

test("a console is limited where the VMM can", () => {
  const version = (minor: number) => ({ major: 1, minor, text: `1.${minor}` });
  assert.deepEqual(serial(version(15), "/console"), { serial_out_path: "/console" });
  assert.ok("rate_limiter" in serial(version(16), "/console"));
});
