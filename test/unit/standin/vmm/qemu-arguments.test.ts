import assert from "node:assert/strict";
import { test } from "node:test";

import type { Drive } from "../../../../src/standin/vmm/bodies.ts";
import { type Machine, qemuArguments, throttle } from "../../../../src/standin/vmm/qemu-arguments.ts";
import { Resources } from "../../../../src/standin/vmm/resources.ts";

const DRIVE: Drive = {
  drive_id: "a",
  partuuid: null,
  is_root_device: true,
  cache_type: "Writeback",
  is_read_only: false,
  path_on_host: "/disk, with a comma",
  rate_limiter: null,
  io_engine: "Sync",
  socket: null,
};

const MACHINE: Machine = {
  id: "m",
  accelerator: "tcg",
  config: new Resources().machine,
  balloon: undefined,
  drives: [],
  networkInterfaces: [],
  entropy: undefined,
  boot: { from: "kernel", kernel: "/k", initrd: null, commandLine: "a=b,c" },
};

/** All values of one option. */
function values(machine: Machine, option: string): readonly string[] {
  const args = qemuArguments(machine);
  return args.filter((_, index) => args[index - 1] === option);
}

test("the guest waits for the monitor, and a reset ends it", () => {
  const args = qemuArguments(MACHINE);
  for (const flag of ["-S", "-no-reboot", "-no-shutdown"]) assert.ok(args.includes(flag), flag);
  assert.deepEqual(values(MACHINE, "-append"), ["a=b,c"]);
  assert.ok(!args.includes("-initrd"));
});

test("a snapshot is loaded from the inherited file, with no kernel", () => {
  const args = qemuArguments({ ...MACHINE, boot: { from: "snapshot" } });
  assert.ok(args.includes("-incoming"));
  assert.ok(!args.includes("-kernel"));
});

test("a path is passed on as it is, and flushes mean something but for Unsafe", () => {
  const blocks = (drive: Drive) =>
    values({ ...MACHINE, drives: [drive] }, "-blockdev").map((value) => JSON.parse(value));
  const [file] = blocks(DRIVE);
  assert.equal(file.filename, "/disk, with a comma");
  assert.deepEqual(
    blocks(DRIVE).map((block) => block.cache["no-flush"]),
    [false, false, false],
  );
  const unsafe = blocks({ ...DRIVE, cache_type: "Unsafe", is_read_only: true });
  assert.deepEqual(
    unsafe.map((block) => [block.cache["no-flush"], block["read-only"]]),
    [
      [true, true],
      [true, true],
      [true, true],
    ],
  );
});

test("drives are attached in their order", () => {
  const drives = [DRIVE, { ...DRIVE, drive_id: "b" }, { ...DRIVE, drive_id: "c" }];
  const devices = values({ ...MACHINE, drives }, "-device").filter((value) => value.startsWith("{"));
  assert.deepEqual(
    devices.map((value) => JSON.parse(value).drive),
    ["drive0", "drive1", "drive2"],
  );
});

test("a bucket is a rate a second, and none is no limit", () => {
  const bucket = { size: 1000, one_time_burst: null, refill_time: 100 };
  assert.deepEqual(throttle({ bandwidth: bucket, ops: null }), { "bps-total": 10_000, "iops-total": 0 });
  assert.deepEqual(throttle({ bandwidth: null, ops: { ...bucket, size: 0 } }), {
    "bps-total": 0,
    "iops-total": 0,
  });
  assert.deepEqual(throttle(null), { "bps-total": 0, "iops-total": 0 });
});

test("under TCG a guest of several processors runs them in turn, and one of one has its thread", () => {
  const accel = (vcpu_count: number): string | undefined =>
    values({ ...MACHINE, config: { ...MACHINE.config, vcpu_count } }, "-accel")[0];
  assert.match(accel(1) ?? "", /^tcg,thread=multi,/);
  assert.match(accel(2) ?? "", /^tcg,thread=single,/);
});
