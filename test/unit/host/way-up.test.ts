import assert from "node:assert/strict";
import { test } from "node:test";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import { limitsOf } from "../../../src/host/way-up.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

const GIB = 2 ** 30;

test("a VMM may write its disk twice over, and its memory, whichever is larger", () => {
  const small = limitsOf({ vcpus: 1, memory_mib: 128, storage_bytes: GIB });
  assert.ok(small.fsize_bytes >= 2 * GIB && small.fsize_bytes < 3 * GIB);
  const large = limitsOf({ vcpus: 1, memory_mib: 8192, storage_bytes: GIB });
  assert.ok(large.fsize_bytes >= 8 * GIB && large.fsize_bytes < 9 * GIB);
});

test("a VMM has the guest's memory and something for itself, and as many processors as the guest", () => {
  const { memory_bytes, cpus } = limitsOf({ vcpus: 3, memory_mib: 1024, storage_bytes: GIB });
  assert.ok(memory_bytes > GIB && memory_bytes < 2 * GIB);
  assert.equal(cpus, 3);
});

test("a VMM is launched under the limits of the disk that was made, whether it boots or wakes, and the record has them", async () => {
  await using fakes = await makeFakeHost();
  const { host, vmms, state, storage } = fakes;
  await host.create({ machine_id: "one", storage_bytes: 3 * GIB }, host.trace());
  const taken = await host.snapshot(machineId("one"), { snapshot_id: "m", memory: true }, host.trace());
  await host.restore(snapshotId(taken.id), { machine_id: "two" }, host.trace());
  await host.stop(machineId("one"), host.trace());
  await host.start(machineId("one"), host.trace());
  for (const id of ["one", "two"] as const) {
    const record = state.state.machines.get(machineId(id));
    assert.equal(storage.machines.get(machineId(id))?.disk, 3 * GIB);
    assert.ok(record?.vmm !== undefined);
    assert.deepEqual(record.vmm.limits, limitsOf({ ...record, storage_bytes: 3 * GIB }), id);
    assert.deepEqual(vmms.jails.get(record.vmm.jail_id)?.spec.limits, record.vmm.limits, id);
  }
});
