import assert from "node:assert/strict";
import { test } from "node:test";

import {
  commandLineFault,
  kernelCommandLine,
  tscKhzFromCpuinfo,
} from "../../../../src/standin/vmm/kernel-arguments.ts";

const KVM = { bootArgs: null, rootDrive: undefined, accelerator: "kvm", tscKhz: undefined } as const;

test("without arguments of the client's the defaults are Firecracker's", () => {
  assert.equal(
    kernelCommandLine(KVM),
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce pci=off",
  );
});

test("the root drive is named, by its partition if it has one", () => {
  const line = (partuuid: string | null, readOnly: boolean): string =>
    kernelCommandLine({ ...KVM, bootArgs: "a", rootDrive: { partuuid, readOnly } });
  assert.equal(line(null, false), "a pci=off root=/dev/vda rw");
  assert.equal(line("12-34", true), "a pci=off root=PARTUUID=12-34 ro");
});

test("what is meant for init stays behind the dashes", () => {
  assert.equal(kernelCommandLine({ ...KVM, bootArgs: "a -- b c" }), "a pci=off -- b c");
});

test("under TCG the guest is told its clocks, unless the client did", () => {
  const tcg = { ...KVM, accelerator: "tcg", tscKhz: 2_000_000 } as const;
  assert.equal(
    kernelCommandLine({ ...tcg, bootArgs: "" }),
    "pci=off tsc=reliable tsc_early_khz=2000000 lpj=8000000 no_timer_check mitigations=off cryptomgr.notests",
  );
  const own = kernelCommandLine({ ...tcg, bootArgs: "lpj=5 mitigations=auto" });
  assert.equal(own.match(/lpj=/g)?.length, 1);
  assert.doesNotMatch(own, /mitigations=off/);
});

test("arguments that are too long or hold other characters are refused", () => {
  assert.equal(commandLineFault("a".repeat(2047)), undefined);
  assert.match(commandLineFault("a".repeat(2048)) ?? "", /too long/);
  assert.match(commandLineFault("a\nb") ?? "", /non-printable/);
});

test("the TSC's frequency is twice told by bogomips where the TSC is constant", () => {
  const cpuinfo = "cpu MHz\t\t: 1800.000\nflags\t\t: fpu constant_tsc pni\nbogomips\t: 4890.81\n";
  assert.equal(tscKhzFromCpuinfo(cpuinfo), 2_445_405);
  assert.equal(tscKhzFromCpuinfo(cpuinfo.replace("constant_tsc", "x")), 1_800_000);
  assert.equal(tscKhzFromCpuinfo("processor : 0\n"), undefined);
});
