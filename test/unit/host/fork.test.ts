import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import type { ForkMachine } from "../../../src/contract/machine.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { assertMatches, restarted } from "../../support/host-trouble.ts";

const source = machineId("source");
const SEVERAL = { count: 5, id_prefix: "kid-" } as const;

const codeOf = (error: unknown): unknown => (error instanceof AppError ? error.code : error);
const refusedAs = (code: string) => (error: unknown) => codeOf(error) === code;

async function withSource(options: Parameters<typeof makeFakeHost>[0] = {}): Promise<FakeHost> {
  const fakes = await makeFakeHost({ slots: 32, ...options });
  await fakes.host.create({ machine_id: "source", memory_mib: 64 }, fakes.trace());
  return fakes;
}

const fork = ({ host }: FakeHost, request: ForkMachine, of = source) => host.fork(of, request, host.trace());

function jailOf({ vmms, state }: FakeHost, id: string) {
  const jail = vmms.jails.get(state.state.machines.get(machineId(id))?.vmm?.jail_id ?? "");
  assert.ok(jail !== undefined, `${id} has no VMM`);
  return jail;
}

const idsOf = ({ host }: FakeHost): string[] =>
  host
    .listMachines()
    .map(({ id }) => id)
    .sort();

/** Only the source is there, it runs, and nothing of a fork is left. */
async function assertNothingOfIt(fakes: FakeHost, when: string): Promise<void> {
  assert.deepEqual(idsOf(fakes), ["source"], when);
  assert.equal(jailOf(fakes, "source").state, "running", when);
  await assertMatches(fakes, when);
}

test("children go on where their source stands, each as a machine of its own, and the snapshot between is nobody's", async () => {
  await using fakes = await withSource();
  const guest_config = { authorized_keys: ["ssh-ed25519 AAAA"] };
  const { machines, created } = await fork(fakes, { ...SEVERAL, guest_config });
  assert.equal(created, true);
  assert.deepEqual(
    machines.map(({ id }) => id),
    ["kid-1", "kid-2", "kid-3", "kid-4", "kid-5"],
  );
  const all = [fakes.host.getMachine(source), ...machines];
  for (const field of ["guest_machine_id", "guest_ssh_host_public_key", "runtime_host", "hostname"] as const)
    assert.equal(new Set(all.map((machine) => machine[field])).size, 6, field);
  for (const { id, snapshot_id, receipt, memory_mib, phase } of machines) {
    assert.deepEqual([phase, snapshot_id, memory_mib], ["running", undefined, 64]);
    assert.ok(receipt?.every(({ done }) => done));
    const { frozen, state } = jailOf(fakes, id);
    assert.deepEqual([frozen?.memory_path !== undefined, state], [true, "running"]);
  }
  const was = fakes.host.getMachine(source);
  for (const { frozen } of fakes.guests.madeUnique)
    assert.equal(frozen.ssh_host_public_key, was.guest_ssh_host_public_key);
  assert.throws(() => fakes.host.listSnapshots(machineId("kid-9")), refusedAs("machine_not_found"));
  assert.deepEqual(fakes.host.listSnapshots(source), []);
  await assertMatches(fakes, "after the fork");
});

test("the source goes on as soon as it was saved, while the children still wake", async () => {
  await using fakes = await withSource();
  const { promise, resolve } = Promise.withResolvers<void>();
  fakes.vmms.hold.load = promise;
  const forking = fork(fakes, SEVERAL);
  await sleep(20);
  assert.equal(jailOf(fakes, "source").state, "running");
  assert.equal(jailOf(fakes, "source").saved.length, 1);
  const phases = fakes.host.listMachines().map(({ id, phase }) => (id === "source" ? id : phase));
  assert.deepEqual(new Set(phases), new Set(["source", "starting"]), "none runs before all do");
  assert.equal(fakes.vmms.jails.size, 5, "four at once, and the source");
  resolve();
  await forking;
});

test("a paused source stays paused, and its children run", async () => {
  await using fakes = await withSource();
  await fakes.host.pause(source, fakes.trace());
  const { machines } = await fork(fakes, { machine_id: "kid" });
  assert.deepEqual([jailOf(fakes, "source").state, jailOf(fakes, "kid").state], ["paused", "running"]);
  assert.equal(machines[0]?.paused, undefined);
});

test("the same fork again is answered with the children that are there, also without their source", async () => {
  await using fakes = await withSource();
  const { machines } = await fork(fakes, SEVERAL);
  assert.deepEqual(await fork(fakes, { ...SEVERAL, ready: "ssh" }), { machines, created: false });
  await fakes.host.delete(source, fakes.trace());
  assert.deepEqual(await fork(fakes, SEVERAL), { machines, created: false });
});

test("the same fork twice at the same time is made once", async () => {
  await using fakes = await withSource();
  const [first, second] = await Promise.all([fork(fakes, SEVERAL), fork(fakes, SEVERAL)]);
  assert.deepEqual([first.created, second.created], [true, false]);
  assert.deepEqual(second.machines, first.machines);
  await assertMatches(fakes, "twice at once");
});

test("a fork is refused when one of its ids is taken, by another fork, another machine or what is left of one", async () => {
  await using fakes = await withSource();
  await fork(fakes, { count: 2, id_prefix: "kid-" });
  await assert.rejects(fork(fakes, SEVERAL), refusedAs("machine_exists"));
  await assert.rejects(
    fork(fakes, { count: 2, id_prefix: "kid-", ready: "started" }),
    refusedAs("machine_exists"),
  );
  await assert.rejects(
    fakes.host.create({ machine_id: "kid-1" }, fakes.trace()),
    refusedAs("machine_exists"),
  );
  await fakes.host.delete(machineId("kid-1"), fakes.trace());
  await assert.rejects(fork(fakes, { count: 2, id_prefix: "kid-" }), refusedAs("machine_exists"));
  fakes.state.setAside.push({ kind: "machine", id: "odd", reason: "of the future", record: {} });
  await assert.rejects(fork(fakes, { machine_id: "odd" }), refusedAs("machine_exists"));
  assert.deepEqual(idsOf(fakes), ["kid-2", "source"]);
  await assertMatches(fakes, "after the refusals");
});

test("what cannot be forked is refused before anything is touched", async () => {
  await using fakes = await withSource();
  await assert.rejects(fork(fakes, SEVERAL, machineId("nobody")), refusedAs("machine_not_found"));
  await fakes.host.stop(source, fakes.trace());
  await assert.rejects(fork(fakes, SEVERAL), refusedAs("wrong_phase"));
  await fakes.host.start(source, fakes.trace());
  const record = fakes.state.state.machines.get(source);
  assert.ok(record?.hardware !== undefined);
  const hardware = { ...record.hardware, huge_pages: "2M" as const };
  await fakes.state.commit({ put: "machine", record: { ...record, hardware } });
  await assert.rejects(fork(fakes, SEVERAL), refusedAs("not_supported"));
  assert.equal(jailOf(fakes, "source").saved.length, 0);
  await assertNothingOfIt(fakes, "after the refusals");
});

test("a family that the host has no memory for is refused before the source stands still", async () => {
  await using fakes = await withSource();
  const { limit_mib, committed_mib } = (await fakes.host.health()).memory;
  const most = limit_mib - committed_mib;
  await fakes.host.create({ machine_id: "large", memory_mib: most - 3 * 64 }, fakes.trace());
  await assert.rejects(fork(fakes, { count: 4, id_prefix: "kid-" }), refusedAs("host_full"));
  assert.equal(jailOf(fakes, "source").saved.length, 0);
  const { machines } = await fork(fakes, { count: 3, id_prefix: "kid-" });
  assert.equal(machines.length, 3, "and one that just fits is made");
  await assertMatches(fakes, "the host is full");
});

test("a family that there are no slots for is refused, and gives back those it had", async () => {
  await using fakes = await withSource({ slots: 4 });
  await assert.rejects(fork(fakes, SEVERAL), refusedAs("host_full"));
  assert.equal(jailOf(fakes, "source").saved.length, 0);
  await assertNothingOfIt(fakes, "no slots");
});

/** Makes the call of that name fail for the third machine that comes to it. */
function failThird<Room extends object>(room: Room, name: keyof Room & string, reached?: () => void): void {
  const real: unknown = Reflect.get(room, name);
  assert.ok(typeof real === "function");
  let left = 3;
  Reflect.set(room, name, async (...given: unknown[]): Promise<unknown> => {
    left -= 1;
    if (left === 0) {
      reached?.();
      throw new AppError("vmm_failed", `${name} fails for one child`);
    }
    return await (Reflect.apply(real, room, given) as Promise<unknown>);
  });
}

const STEPS: Readonly<Record<string, (fakes: FakeHost) => void>> = {
  "its identity": ({ guests }) => failThird(guests, "makeIdentity"),
  "its slot": ({ network }) => failThird(network, "acquire"),
  "its folder": ({ storage }) => failThird(storage, "makeMachine"),
  "its disk": ({ storage }) => failThird(storage, "cloneSnapshotDisk"),
  "its seed": ({ storage }) => failThird(storage, "writeSeed"),
  "its files": ({ storage }) => failThird(storage, "memoryFiles"),
  "the handover": ({ storage }) => failThird(storage, "handOver"),
  "its jail": ({ vmms }) => failThird(vmms, "launch"),
  "its load": ({ vmms }) => {
    const launch = vmms.launch.bind(vmms);
    let left = 3;
    vmms.launch = async (...given) => {
      const vmm = await launch(...given);
      left -= 1;
      if (left === 0) vmm.load = () => Promise.reject(new AppError("vmm_failed", "load fails for one child"));
      return vmm;
    };
  },
  "its uniqueness": ({ guests }) => failThird(guests, "makeUnique"),
  "its readiness": ({ guests }) => failThird(guests, "waitReady"),
  "its durability": ({ storage }) => failThird(storage, "syncMachine"),
  "its way out": ({ network }) => failThird(network, "openEgress"),
};

for (const [step, plant] of Object.entries(STEPS)) {
  test(`when one child fails at ${step}, all are undone and the source runs on`, async () => {
    await using fakes = await withSource();
    plant(fakes);
    await assert.rejects(fork(fakes, SEVERAL), (error: unknown) => {
      assert.ok(["vmm_failed", "guest_not_ready"].includes(String(codeOf(error))), String(error));
      return true;
    });
    await assertNothingOfIt(fakes, step);
  });
}

for (const call of ["save", "pause", "resume"] as const) {
  test(`when the source's ${call} fails, no child is made and it runs on as soon as it can`, async () => {
    await using fakes = await withSource();
    const vmm = fakes.vmms.fail;
    vmm[call] = new AppError("vmm_failed", "no");
    await assert.rejects(fork(fakes, SEVERAL), refusedAs("vmm_failed"));
    delete vmm[call];
    if (call === "resume") {
      assert.equal(jailOf(fakes, "source").state, "paused");
      await fakes.host.close();
      await using after = await restarted(fakes, undefined);
      await assertNothingOfIt(after, "after the next start");
    } else await assertNothingOfIt(fakes, call);
  });
}

test("a fork ends its other children's work before it undoes any, and waits for it", async () => {
  await using fakes = await withSource({ readyTimeoutMs: 60_000 });
  fakes.guests.everAnswersWhenWoken = false;
  const makeUnique = fakes.guests.makeUnique.bind(fakes.guests);
  let woken = 0;
  let ended = 0;
  fakes.guests.makeUnique = async (...given) => {
    woken += 1;
    if (woken === 4) throw new AppError("guest_not_ready", "one child says nothing");
    try {
      return await makeUnique(...given);
    } finally {
      await sleep(10);
      ended += 1;
    }
  };
  const release = fakes.vmms.release.bind(fakes.vmms);
  const endedAtUndo: number[] = [];
  fakes.vmms.release = async (ref) => {
    endedAtUndo.push(ended);
    await release(ref);
  };
  await assert.rejects(fork(fakes, SEVERAL), refusedAs("guest_not_ready"));
  assert.deepEqual(endedAtUndo, [3, 3, 3, 3], "the fifth never began");
  await assertNothingOfIt(fakes, "one said nothing");
});

test("a delete of a child that is being made ends the fork, and none is there", async () => {
  await using fakes = await withSource({ readyTimeoutMs: 60_000 });
  fakes.guests.everAnswersWhenWoken = false;
  const refused = assert.rejects(fork(fakes, SEVERAL), refusedAs("operation_cancelled"));
  await sleep(20);
  await fakes.host.delete(machineId("kid-5"), fakes.trace());
  await refused;
  await assertNothingOfIt(fakes, "kid-5 was deleted");
});

test("a delete of a child ends a fork that still waits for its turn", async () => {
  await using fakes = await withSource();
  const { promise, resolve } = Promise.withResolvers<void>();
  fakes.vmms.hold.save = promise;
  const first = fork(fakes, { machine_id: "other" });
  const refused = assert.rejects(fork(fakes, SEVERAL), refusedAs("operation_cancelled"));
  await sleep(10);
  await fakes.host.delete(machineId("kid-1"), fakes.trace());
  await refused;
  resolve();
  await first;
  assert.deepEqual(idsOf(fakes), ["other", "source"]);
  await assertMatches(fakes, "one of two forks");
});

test("the daemon's end breaks a fork off, and nothing of it is left", async () => {
  const fakes = await withSource({ readyTimeoutMs: 60_000, closeTimeoutMs: 30 });
  fakes.guests.everAnswersWhenWoken = false;
  const refused = assert.rejects(fork(fakes, SEVERAL), refusedAs("shutting_down"));
  await sleep(20);
  await fakes.host.close();
  await refused;
  await using after = await restarted(fakes, undefined);
  await assertNothingOfIt(after, "after the next start");
});

test("two forks that cross do not wait for each other for ever", async () => {
  await using fakes = await withSource();
  const b = machineId("b");
  await fakes.host.create({ machine_id: "b", memory_mib: 64 }, fakes.trace());
  // Each wants as a child what the other has as its source, and they share a child.
  const ends = await Promise.allSettled([
    fork(fakes, { machine_id: "b" }),
    fork(fakes, { machine_id: "source" }, b),
    fork(fakes, { count: 2, id_prefix: "kid-" }),
    fork(fakes, { count: 3, id_prefix: "kid-" }, b),
    fakes.host.stop(b, fakes.trace()),
  ]);
  const refused = ends.map((end) => (end.status === "rejected" ? codeOf(end.reason) : end.status));
  assert.deepEqual(refused, ["machine_exists", "machine_exists", "fulfilled", "machine_exists", "fulfilled"]);
  assert.deepEqual(idsOf(fakes), ["b", "kid-1", "kid-2", "source"]);
  await assertMatches(fakes, "after both");
});

test("children of a fork that could not be undone are taken off by a delete or the next start, and no namesake is", async () => {
  const fakes = await withSource();
  failThird(fakes.vmms, "launch", () => {
    fakes.vmms.fail.release = new AppError("vmm_timeout", "it does not die");
  });
  await assert.rejects(fork(fakes, { count: 3, id_prefix: "kid-" }), refusedAs("vmm_failed"));
  assert.deepEqual(
    fakes.host
      .listMachines()
      .map(({ phase }) => phase)
      .sort(),
    ["failed", "failed", "failed", "running"],
  );
  assert.equal((await fakes.host.health()).memory.committed_mib, 4 * 64);
  delete fakes.vmms.fail.release;
  await fakes.host.delete(machineId("kid-1"), fakes.trace());
  await fakes.host.create({ machine_id: "kid-1", memory_mib: 64 }, fakes.trace());
  await fakes.host.close();
  await using after = await restarted(fakes, undefined);
  assert.deepEqual(idsOf(after), ["kid-1", "source"]);
  await assertMatches(after, "after the next start");
});

test("a child can be forked, stopped and started, and none of it needs the fork's snapshot", async () => {
  await using fakes = await withSource();
  await fork(fakes, { machine_id: "kid" });
  const kid = machineId("kid");
  const { machines } = await fork(fakes, { machine_id: "grandchild" }, kid);
  assert.equal(machines[0]?.hostname, "grandchild");
  await fakes.host.stop(kid, fakes.trace());
  const { phase, receipt } = await fakes.host.start(kid, fakes.trace());
  assert.deepEqual([phase, receipt], ["running", undefined], "it booted: nothing was woken");
  await assertMatches(fakes, "after all of it");
});

test("a fork's full save is the base of the source's next diff, and the children's own", async () => {
  await using fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "source", track_dirty_pages: true }, fakes.trace());
  await fork(fakes, { machine_id: "kid" });
  for (const id of [source, machineId("kid")]) {
    const snapshot_id = `diff-of-${id}`;
    const { memory } = await fakes.host.snapshot(id, { snapshot_id, memory: "diff" }, fakes.trace());
    assert.equal(memory, "diff");
  }
  await assertMatches(fakes, "two diffs");
});
