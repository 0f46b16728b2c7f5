import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import type { ResizeMachine } from "../../../src/contract/machine.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { assertMatches, restarted } from "../../support/host-trouble.ts";

const one = machineId("one");
const MIB = 2 ** 20;
const BIGGER = 600 * MIB;

const codeOf = (error: unknown): unknown => (error instanceof AppError ? error.code : error);
const refusedAs = (code: string) => (error: unknown) => codeOf(error) === code;

async function withRunning(): Promise<FakeHost> {
  const fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  return fakes;
}

function guestOf({ vmms }: FakeHost) {
  const [jail] = vmms.jails.values();
  assert.ok(jail !== undefined);
  return jail;
}

const resize = ({ host }: FakeHost, request: ResizeMachine) => host.resize(one, request, host.trace());

test("the disk of a running machine grows, and its VMM is told once the file is longer", async () => {
  await using fakes = await withRunning();
  const machine = await resize(fakes, { storage_bytes: BIGGER });
  assert.deepEqual([machine.phase, machine.storage_bytes], ["running", BIGGER]);
  assert.equal(guestOf(fakes).diskGrew, 1);
  await assertMatches(fakes, "after it grew");
});

test("the disk of a paused machine grows, and it stays paused", async () => {
  await using fakes = await withRunning();
  await fakes.host.pause(one, fakes.trace());
  const machine = await resize(fakes, { storage_bytes: BIGGER });
  assert.deepEqual([machine.paused, guestOf(fakes).state], [true, "paused"]);
  await assertMatches(fakes, "after it grew");
});

test("memory and vCPUs of a running machine want a stop, also beside a disk that could grow", async () => {
  await using fakes = await withRunning();
  for (const request of [{ memory_mib: 256 }, { vcpus: 2, storage_bytes: BIGGER }])
    await assert.rejects(resize(fakes, request), refusedAs("wrong_phase"));
  assert.equal(fakes.storage.machines.get(one)?.disk, 512 * MIB);
});

test("a running machine's disk stays within what its VMM may write, and a smaller one is refused", async () => {
  await using fakes = await withRunning();
  const { fsize_bytes } = guestOf(fakes).spec.limits;
  await assert.rejects(resize(fakes, { storage_bytes: fsize_bytes + 1 }), refusedAs("not_supported"));
  await assert.rejects(resize(fakes, { storage_bytes: 256 * MIB }), refusedAs("disk_too_small"));
  assert.deepEqual([fakes.storage.machines.get(one)?.disk, guestOf(fakes).diskGrew], [512 * MIB, 0]);
  const most = Math.floor(fsize_bytes / 4096) * 4096;
  assert.equal((await resize(fakes, { storage_bytes: most })).storage_bytes, most);
  await fakes.host.stop(one, fakes.trace());
  const more = await resize(fakes, { storage_bytes: most + MIB });
  assert.equal(more.storage_bytes, most + MIB, "a stopped machine's grows further");
});

test("the disk of a machine that runs since before limits were kept waits for a stop", async () => {
  await using fakes = await withRunning();
  const record = fakes.state.state.machines.get(one);
  assert.ok(record?.vmm !== undefined);
  const { limits: _limits, ...vmm } = record.vmm;
  await fakes.state.commit({ put: "machine", record: { ...record, vmm } });
  await assert.rejects(resize(fakes, { storage_bytes: BIGGER }), refusedAs("not_supported"));
  assert.equal(fakes.storage.machines.get(one)?.disk, 512 * MIB);
});

test("a VMM that could not be told is told by the next try, or by the next start of the daemon", async () => {
  for (const again of ["resize", "restart"]) {
    const fakes = await withRunning();
    fakes.vmms.fail.diskGrew = new AppError("vmm_timeout", "busy");
    await assert.rejects(resize(fakes, { storage_bytes: BIGGER }), refusedAs("vmm_timeout"));
    delete fakes.vmms.fail.diskGrew;
    if (again === "resize") await resize(fakes, { storage_bytes: BIGGER });
    await fakes.host.close();
    await using after = await restarted(fakes, undefined);
    assert.equal(guestOf(after).diskGrew, 1, again);
    assert.equal(after.host.getMachine(one).storage_bytes, BIGGER);
    await assertMatches(after, again);
  }
});

test("a resize of a running machine that has no room for it leaves it as it was", async () => {
  await using fakes = await withRunning();
  fakes.storage.failures.set("growDisk", new AppError("disk_full", "full"));
  await assert.rejects(resize(fakes, { storage_bytes: BIGGER }), refusedAs("disk_full"));
  assert.equal(guestOf(fakes).diskGrew, 0);
  await assertMatches(fakes, "after the refusal");
});

test("a new size of a stopped machine must fit the hardware it has", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one", smt: true, vcpus: 2 }, fakes.trace());
  await fakes.host.stop(one, fakes.trace());
  await assert.rejects(resize(fakes, { vcpus: 3 }), refusedAs("bad_request"));
  assert.equal((await resize(fakes, { vcpus: 4 })).vcpus, 4);
});
