import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuOf, hostFacts } from "../../../src/host/host-facts.ts";

const XEON = `processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Processor @ 2.90GHz
stepping\t: 7
flags\t\t: fpu vme sse2  avx2
bugs\t\t: spectre_v1 mmio_stale_data

processor\t: 1
vendor_id\t: other
flags\t\t: none
`;

test("the processor is what the first entry of /proc/cpuinfo says, its features in order", () => {
  assert.deepEqual(cpuOf(XEON), {
    cpu_vendor: "GenuineIntel",
    cpu_model: "Intel(R) Xeon(R) Processor @ 2.90GHz, 6, 85, 7",
    cpu_flags: ["avx2", "fpu", "sse2", "vme"],
  });
});

test("on ARM the same facts have other names", () => {
  const facts = cpuOf("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n");
  assert.deepEqual(facts, { cpu_vendor: "0x41", cpu_model: "", cpu_flags: ["asimd", "fp"] });
});

test("what the kernel does not tell is empty", () => {
  assert.deepEqual(cpuOf(""), { cpu_vendor: "", cpu_model: "", cpu_flags: [] });
});

test("this host's facts are read once", () => {
  const facts = hostFacts();
  assert.equal(hostFacts(), facts);
  assert.ok(facts.kernel !== "" && facts.architecture !== "" && facts.cpu_flags.length > 0);
});
