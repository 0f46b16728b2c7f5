import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import type { HardwareOptions } from "../../../src/contract/machine.ts";
import { hardwareOf } from "../../../src/host/hardware.ts";
import { refuseWithoutHugePages } from "../../../src/host/huge-pages.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

const SETTINGS = { driveIoEngine: "Async", enablePci: true } as const;
const SIZE = { vcpus: 2, memory_mib: 512 };

const refusalOf = (request: HardwareOptions, size = SIZE): [unknown, unknown] => {
  try {
    hardwareOf(request, size, SETTINGS);
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    return [error.code, error.details?.["field"]];
  }
  return [undefined, undefined];
};

test("what a request leaves out has its default, and the settings say the rest", () => {
  assert.deepEqual(hardwareOf({}, SIZE, SETTINGS), {
    io_engine: "Async",
    pci: true,
    huge_pages: "None",
    smt: false,
    track_dirty_pages: false,
  });
  const options = {
    rate_limits: { disk: { ops: { size: 1, refill_time_ms: 1000 } } },
    cpu_template: "T2",
    huge_pages: "2M",
    smt: true,
    track_dirty_pages: true,
    boot_args: "mitigations=off",
  } as const;
  assert.deepEqual(hardwareOf(options, SIZE, SETTINGS), { io_engine: "Async", pci: true, ...options });
});

test("kernel arguments that are the daemon's own are refused in whatever dress they come", () => {
  const theirs = [
    "root=/dev/vdc",
    "quiet root=/dev/vdc",
    "init=/bin/sh",
    "rdinit=/bin/sh",
    "console=tty0",
    "reboot=t",
    "panic=0",
    "noinitrd",
    "initrd=0x1,2",
    "pci=off",
    "virtio_mmio.device=4K@0xd0000000:5",
    "virtio-mmio.device=4K@0xd0000000:5",
    "computer_host.seed=vdc",
    "computer-host.seed_digest=00",
    '"root=/dev/vdc"',
    'x="y root=/dev/vdc"',
    "-- --single",
    'quiet="open',
  ];
  for (const boot_args of theirs)
    assert.deepEqual(refusalOf({ boot_args }), ["bad_request", "boot_args"], boot_args);
  const fine = [
    "quiet",
    "rootdelay=1",
    "our.flag=1 other.flag",
    'dyndbg="file a.c +p"',
    "panic_on_oops=1",
    "",
  ];
  for (const boot_args of fine) assert.deepEqual(refusalOf({ boot_args }), [undefined, undefined], boot_args);
});

test("what does not fit vCPUs or memory is refused by the field's name", () => {
  assert.deepEqual(refusalOf({ smt: true }, { vcpus: 3, memory_mib: 512 }), ["bad_request", "vcpus"]);
  for (const vcpus of [1, 2, 4])
    assert.deepEqual(refusalOf({ smt: true }, { vcpus, memory_mib: 512 })[0], undefined);
  assert.deepEqual(refusalOf({ smt: false }, { vcpus: 3, memory_mib: 512 })[0], undefined);
  const odd = { vcpus: 1, memory_mib: 129 };
  assert.deepEqual(refusalOf({ huge_pages: "2M" }, odd), ["bad_request", "memory_mib"]);
  assert.deepEqual(refusalOf({ huge_pages: "None" }, odd)[0], undefined);
});

test("a rate limit under which a guest stands still is a mistake in a unit", () => {
  const disk = { bandwidth: { size: 100, refill_time_ms: 1000 } };
  assert.deepEqual(refusalOf({ rate_limits: { disk } }), ["bad_request", "rate_limits.disk.bandwidth"]);
  const network_tx = { ops: { size: 1, refill_time_ms: 60_000 } };
  assert.deepEqual(refusalOf({ rate_limits: { network_tx } }), ["bad_request", "rate_limits.network_tx.ops"]);
});

test("huge pages that the host has not are refused before anything is touched", async () => {
  const pool = await mkdtemp(join(tmpdir(), "huge-pages-"));
  const hardware = hardwareOf({ huge_pages: "2M" }, SIZE, SETTINGS);
  const wants = (memory_mib: number) => refuseWithoutHugePages(hardware, memory_mib, pool);
  const isFull = (error: unknown) =>
    error instanceof AppError && error.code === "host_full" && error.details?.["field"] === "huge_pages";
  try {
    await assert.rejects(wants(64), isFull, "a kernel without such a pool");
    const numbers = {
      free_hugepages: 200,
      resv_hugepages: 80,
      nr_overcommit_hugepages: 10,
      surplus_hugepages: 2,
    };
    for (const [name, pages] of Object.entries(numbers)) await writeFile(join(pool, name), `${pages}\n`);
    await wants(256);
    await assert.rejects(wants(258), isFull);
    await refuseWithoutHugePages(hardwareOf({}, SIZE, SETTINGS), 4096, pool);
  } finally {
    await rm(pool, { recursive: true });
  }
});

test("the VMM is given the hardware that the request asked for, and the machine tells of it", async () => {
  await using fakes = await makeFakeHost();
  const options = {
    track_dirty_pages: true,
    boot_args: "our.flag=1",
    rate_limits: { network_rx: { ops: { size: 5000, refill_time_ms: 500 } } },
  };
  const { machine } = await fakes.host.create({ machine_id: "one", ...options }, fakes.trace());
  const given = { io_engine: "Sync", pci: false, huge_pages: "None", smt: false, ...options };
  assert.deepEqual(machine.hardware, { ...given, cache_type: "Writeback" });
  const [jail] = fakes.vmms.jails.values();
  assert.deepEqual(jail?.hardware?.options, given);
  assert.match(jail?.hardware?.boot_args ?? "", / our\.flag=1$/);
});

test("a hardware option makes it another request, and a default written out does not", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  const same = {
    machine_id: "one",
    huge_pages: "None",
    smt: false,
    track_dirty_pages: false,
    rate_limits: {},
  } as const;
  assert.equal((await fakes.host.create(same, fakes.trace())).created, false);
  const other = fakes.host.create({ machine_id: "one", track_dirty_pages: true }, fakes.trace());
  await assert.rejects(other, (error) => error instanceof AppError && error.code === "machine_exists");
});

test("hardware that cannot be is refused before anything is touched", async () => {
  await using fakes = await makeFakeHost();
  for (const bad of [
    { boot_args: "root=/dev/vdc" },
    { smt: true, vcpus: 3 },
    { huge_pages: "2M", memory_mib: 129 },
  ] as const)
    await assert.rejects(
      fakes.host.create({ machine_id: "one", ...bad }, fakes.trace()),
      (error) => error instanceof AppError && error.status === 400,
    );
  assert.deepEqual([fakes.vmms.jails.size, fakes.network.held.size, fakes.storage.machines.size], [0, 0, 0]);
});
