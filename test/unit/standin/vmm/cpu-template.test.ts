import assert from "node:assert/strict";
import { test } from "node:test";

import { checkCpuTemplate } from "../../../../src/standin/vmm/cpu-template.ts";

const cpuinfo = (vendor: string, family: number, model: number, stepping: number): string =>
  `processor\t: 0\nvendor_id\t: ${vendor}\ncpu family\t: ${family}\nmodel\t\t: ${model}\nmodel name\t: A CPU\nstepping\t: ${stepping}\n\nprocessor\t: 1\n`;
const CASCADE_LAKE = cpuinfo("GenuineIntel", 6, 85, 7);
const ICE_LAKE = cpuinfo("GenuineIntel", 6, 106, 6);
const MILAN = cpuinfo("AuthenticAMD", 25, 1, 1);

test("a template is taken on the models that it was made for", () => {
  for (const [template, text] of [
    ["C3", CASCADE_LAKE],
    ["T2", ICE_LAKE],
    ["T2S", CASCADE_LAKE],
    ["T2CL", ICE_LAKE],
    ["T2A", MILAN],
  ] as const)
    assert.doesNotThrow(() => checkCpuTemplate(template, text), template);
});

test("none, in either spelling, is taken anywhere", () => {
  for (const template of [null, "None"] as const)
    assert.doesNotThrow(() => checkCpuTemplate(template, cpuinfo("Other", 1, 1, 1)));
});

test("another maker's CPU is told from another model", () => {
  assert.throws(() => checkCpuTemplate("T2A", ICE_LAKE), /vendor mismatched/);
  assert.throws(() => checkCpuTemplate("T2", MILAN), /vendor mismatched/);
  assert.throws(() => checkCpuTemplate("T2S", ICE_LAKE), /model is not permitted/);
  assert.throws(() => checkCpuTemplate("T2A", cpuinfo("AuthenticAMD", 25, 17, 1)), /model is not permitted/);
});
