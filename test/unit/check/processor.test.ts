import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuFindings } from "../../../src/check/cpu.ts";
import { memoryFindings } from "../../../src/check/memory.ts";
import { about, found } from "./tree.ts";

const FLAWS = "sys/devices/system/cpu/vulnerabilities";
const GOOD_CPU = {
  "sys/devices/system/cpu/smt/active": "0\n",
  [`${FLAWS}/spectre_v2`]: "Mitigation: Retpolines; BHI: Not affected\n",
  [`${FLAWS}/mds`]: "Not affected\n",
  [`${FLAWS}/old_microcode`]: "Not affected\n",
  "proc/cmdline": "root=/dev/sda1 quiet\n",
  "proc/cpuinfo": "processor\t: 0\nmicrocode\t: 0xa1\n",
  "sys/devices/system/edac/mc/mc0/mc_name": "x",
};

test("a processor as production wants it is ok in every line", () => {
  assert.deepEqual(found(GOOD_CPU, cpuFindings), [
    "ok smt",
    "ok cpu flaws",
    "ok mitigations",
    "ok microcode",
    "ok ecc",
  ]);
});

test("simultaneous multithreading is warned of, with how to turn it off", () => {
  const lines = found({ ...GOOD_CPU, "sys/devices/system/cpu/smt/active": "1\n" }, cpuFindings);
  assert.match(lines[0] ?? "", /^warn smt: on: .*nosmt/);
});

test("each flaw that is open is named, also where only the hyperthreads are", () => {
  const open = {
    [`${FLAWS}/mds`]: "Mitigation: Clear CPU buffers; SMT vulnerable\n",
    [`${FLAWS}/spec_store_bypass`]: "Vulnerable\n",
    [`${FLAWS}/itlb_multihit`]: "KVM: Mitigation: Split huge pages\n",
  };
  const lines = about("cpu flaws", found({ ...GOOD_CPU, ...open }, cpuFindings));
  assert.equal(lines.length, 2);
  assert.match(lines[0] ?? "", /^warn cpu flaws: mds: Mitigation: Clear CPU buffers; SMT vulnerable/);
  assert.match(lines[1] ?? "", /^warn cpu flaws: spec_store_bypass: Vulnerable; update/);
});

test("mitigations that were switched off at boot are warned of, whole or in part", () => {
  for (const [cmdline, level] of [
    ["quiet mitigations=off", "warn"],
    ["mitigations=auto,no_guest_host", "warn"],
    ["mitigations=auto;no_cross_thread", "warn"],
    ["mitigations=auto,nosmt", "ok"],
  ] as const) {
    const [line = ""] = about("mitigations", found({ ...GOOD_CPU, "proc/cmdline": cmdline }, cpuFindings));
    assert.ok(line.startsWith(`${level} `), `${cmdline}: ${line}`);
  }
});

test("microcode that the kernel knows to be old is warned of", () => {
  const [line = ""] = about(
    "microcode",
    found({ ...GOOD_CPU, [`${FLAWS}/old_microcode`]: "Vulnerable\n" }, cpuFindings),
  );
  assert.match(line, /^warn microcode: Vulnerable: install/);
});

test("a host that tells nothing is not taken for a good one", () => {
  assert.deepEqual(
    found({}, cpuFindings).map((line) => line.split(":")[0]),
    ["warn smt", "warn cpu flaws", "ok mitigations", "ok microcode", "warn ecc"],
  );
});

test("swap on a disk and merged pages are warned of; compressed memory is none", () => {
  const header = "Filename\t\t\t\tType\t\tSize\n";
  const good = {
    "proc/swaps": `${header}/dev/zram0                              partition\t100\n`,
    "sys/kernel/mm/ksm/run": "2\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "500\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
  };
  assert.deepEqual(found(good, memoryFindings), ["ok swap", "ok ksm", "ok huge pages", "ok thp"]);
  const bad = found(
    {
      ...good,
      "proc/swaps": `${header}/swapfile file\t100\n/dev/sda2 partition\t5\n`,
      "sys/kernel/mm/ksm/run": "1\n",
    },
    memoryFindings,
  );
  assert.match(bad[0] ?? "", /^warn swap: .*\/swapfile, \/dev\/sda2: swapoff/);
  assert.match(bad[1] ?? "", /^warn ksm: on/);
});
