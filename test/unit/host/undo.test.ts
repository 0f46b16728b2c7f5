import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

test("a machine that does not come up leaves no connection to its VMM", async () => {
  await using fakes = await makeFakeHost();
  const { host, vmms } = fakes;
  await host.create({ machine_id: "one" }, fakes.trace());
  assert.equal(vmms.connected.size, 1, "of one that runs there is one");
  vmms.fail.boot = new AppError("vmm_failed", "no");
  await assert.rejects(host.create({ machine_id: "two" }, fakes.trace()), { code: "vmm_failed" });
  assert.equal(vmms.connected.size, 1);
  await host.stop(machineId("one"), fakes.trace());
  assert.equal(vmms.connected.size, 0);
  await assert.rejects(host.start(machineId("one"), fakes.trace()), { code: "vmm_failed" });
  assert.equal(vmms.connected.size, 0);
});

test("a start that fails takes the disk back from the VMM's user", async () => {
  await using fakes = await makeFakeHost();
  const { host, vmms, storage } = fakes;
  const one = machineId("one");
  await host.create({ machine_id: one }, fakes.trace());
  assert.deepEqual([...storage.handedOver], [one]);
  await host.stop(one, fakes.trace());
  vmms.fail.boot = new AppError("vmm_failed", "no");
  await assert.rejects(host.start(one, fakes.trace()), { code: "vmm_failed" });
  assert.deepEqual([...storage.handedOver], []);
});
