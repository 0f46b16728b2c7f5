import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import type {
  FrozenGuest,
  GuestHardware,
  LaunchSpec,
  SaveTarget,
  Vmm,
  Vmms,
} from "../../../src/vmm/types.ts";

/** A vmm room and what a test needs around it. */
export interface VmmsUnderTest extends AsyncDisposable {
  readonly vmms: Vmms;
  readonly hardware: GuestHardware;
  /** False: the guest under test does not end at a key press. */
  readonly guestListens?: boolean;
  /** How long a death may take to be told, in milliseconds. Default 2,000. */
  readonly waitMs?: number;
  spec(): Promise<LaunchSpec>;
  /** Two files for a save, as storage makes them: empty, or the memory a copy of the base's for a diff. */
  target(base?: SaveTarget): Promise<SaveTarget>;
  /** A new launch whose jail holds what was saved, and how to wake it there. */
  thaw(saved: SaveTarget): Promise<{ spec: LaunchSpec; frozen: FrozenGuest }>;
  /** A room of a daemon that starts again beside the VMMs that run. */
  restart(): Promise<Vmms>;
  /** Lets the VMM die by itself. */
  die(vmm: Vmm): void;
}

const MISSING = { jail_id: "never-was", uid: 1, gid: 1, netns_path: "/none" };

/** What every implementation of the vmm room's door must do. */
export function vmmsContract(
  name: string,
  make: () => Promise<VmmsUnderTest>,
  skip: string | false = false,
): void {
  const check = (what: string, body: (room: VmmsUnderTest) => Promise<void>): void => {
    test(`${name}: ${what}`, { skip }, async () => {
      await using room = await make();
      await body(room);
    });
  };

  check("a launched VMM boots, pauses, resumes and is a jail until it is released", async (room) => {
    const spec = await room.spec();
    const vmm = await room.vmms.launch(spec);
    assert.deepEqual(await room.vmms.listJails(), [spec.jail_id]);
    await vmm.boot(room.hardware);
    await vmm.pause();
    await vmm.pause();
    await vmm.resume();
    assert.equal(vmm.gone.aborted, false);
    await vmm.kill();
    assert.equal(vmm.gone.aborted, true);
    assert.deepEqual(await room.vmms.listJails(), [spec.jail_id]);
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.vmms.listJails(), []);
  });

  check("jail ids are new, short and take no underscore", async (room) => {
    const ids = Array.from({ length: 100 }, () => room.vmms.newJailId());
    assert.equal(new Set(ids).size, 100);
    for (const id of ids) assert.match(id, /^[a-z][a-z0-9-]{3,15}$/);
    await Promise.resolve();
  });

  check("a jail id cannot be used twice, and the first one is not harmed", async (room) => {
    const spec = await room.spec();
    const vmm = await room.vmms.launch(spec);
    await assert.rejects(room.vmms.launch(spec), { code: "internal" });
    await vmm.boot(room.hardware);
    await room.vmms.release(vmm.ref);
  });

  check("an illegal call is refused with the VMM's words", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    await assert.rejects(vmm.pause(), { code: "vmm_failed" });
    await vmm.boot(room.hardware);
    await assert.rejects(vmm.boot(room.hardware), { code: "vmm_failed" });
    await room.vmms.release(vmm.ref);
  });

  check(
    "a paused guest is saved and goes on; two others are woken from it, paused, and saved again",
    async (room) => {
      const source = await room.vmms.launch(await room.spec());
      await source.boot(room.hardware);
      await source.pause();
      const full = await room.target();
      await source.save(full, room.hardware.memory_mib);
      await source.resume();
      const woken = await Promise.all([wake(room, full), wake(room, full)]);
      for (const vmm of woken) {
        await vmm.resume();
        await vmm.pause();
      }
      const diff = await room.target(full);
      await woken[0].save(diff, room.hardware.memory_mib);
      const again = await wake(room, diff);
      await again.resume();
      for (const { ref } of [source, ...woken, again]) await room.vmms.release(ref);
      assert.deepEqual(await room.vmms.listJails(), []);
    },
  );

  check("only what is paused is saved, and only what is new is woken", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    const target = await room.target();
    const save = async (): Promise<void> => await vmm.save(target, room.hardware.memory_mib);
    await assert.rejects(save(), { code: "vmm_failed" });
    await vmm.boot(room.hardware);
    await assert.rejects(save(), { code: "vmm_failed" });
    const { frozen } = await room.thaw(await room.target());
    await assert.rejects(vmm.load(frozen), { code: "vmm_failed" });
    await vmm.pause();
    await save();
    await vmm.resume();
    await room.vmms.release(vmm.ref);
  });

  check("a load that cannot be ends the VMM", async (room) => {
    const { spec, frozen } = await room.thaw(await room.target());
    const vmm = await room.vmms.launch(spec);
    await assert.rejects(vmm.load({ ...frozen, state_path: "/missing" }), { code: "vmm_failed" });
    assert.equal(await vmm.waitGone(room.waitMs ?? 2000), true);
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.vmms.listJails(), []);
  });

  check("a load that is aborted throws the reason", async (room) => {
    const { spec, frozen } = await room.thaw(await room.target());
    const vmm = await room.vmms.launch(spec);
    const reason = new Error("changed my mind");
    await assert.rejects(vmm.load(frozen, AbortSignal.abort(reason)), reason);
    await room.vmms.release(vmm.ref);
  });

  check("a disk that grew is told to a guest that is there", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    await assert.rejects(vmm.diskGrew(), { code: "vmm_failed" });
    await vmm.boot(room.hardware);
    await vmm.diskGrew();
    await vmm.pause();
    await vmm.diskGrew();
    await room.vmms.release(vmm.ref);
  });

  check("after a restart a woken VMM is adopted like any other", async (room) => {
    const source = await room.vmms.launch(await room.spec());
    await source.boot(room.hardware);
    await source.pause();
    const full = await room.target();
    await source.save(full, room.hardware.memory_mib);
    const woken = await wake(room, full);
    await woken.resume();
    await woken.detach();
    const vmms = await room.restart();
    const adopted = await vmms.adopt(woken.ref);
    assert.ok(adopted);
    await adopted.pause();
    await adopted.save(await room.target(full), room.hardware.memory_mib);
    await adopted.diskGrew();
    await adopted.resume();
    assert.equal(woken.gone.aborted, false);
    for (const { ref } of [source, adopted]) await vmms.release(ref);
    assert.deepEqual(await vmms.listJails(), []);
  });

  check("the format of snapshots is known", async (room) => {
    assert.match(room.vmms.snapshotFormat, /^\d+\.\d+\.\d+/);
    await Promise.resolve();
  });

  check("a death is told at once, and later calls fail as the VMM's failure", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    await vmm.boot(room.hardware);
    assert.equal(await vmm.waitGone(20), false);
    const told = once(vmm.gone, "abort", { signal: AbortSignal.timeout(room.waitMs ?? 2000) });
    room.die(vmm);
    await told;
    assert.equal(await vmm.waitGone(0), true);
    await assert.rejects(vmm.pause(), { code: "vmm_failed" });
    await vmm.kill();
    await room.vmms.release(vmm.ref);
  });

  check("a key press is taken, and ends a guest that listens", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    await vmm.boot(room.hardware);
    await vmm.sendCtrlAltDel();
    if (room.guestListens !== false) assert.equal(await vmm.waitGone(room.waitMs ?? 2000), true);
    await room.vmms.release(vmm.ref);
  });

  check("after a restart exactly the recorded VMM is adopted, and its death is told", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    await vmm.boot(room.hardware);
    await vmm.detach();
    const { ref } = vmm;
    const vmms = await room.restart();
    const { process, ...unrecorded } = ref;
    assert.equal(await vmms.adopt(unrecorded), undefined);
    const later = { ...process, start_time_ticks: process.start_time_ticks + 1 };
    assert.equal(await vmms.adopt({ ...ref, process: later }), undefined);
    assert.equal(await vmms.adopt({ ...ref, process: { ...process, boot_id: "another" } }), undefined);
    assert.equal(await vmms.adopt({ ...ref, uid: ref.uid + 1 }), undefined);
    assert.equal(await vmms.adopt({ ...ref, netns_path: "/run/netns/another" }), undefined);
    assert.equal(await vmms.adopt(MISSING), undefined);
    const adopted = await vmms.adopt(ref);
    assert.ok(adopted);
    await adopted.pause();
    await adopted.resume();
    const told = once(adopted.gone, "abort", { signal: AbortSignal.timeout(room.waitMs ?? 2000) });
    room.die(adopted);
    await told;
    assert.equal(await vmms.adopt(ref), undefined);
    await vmms.release(ref);
    assert.deepEqual(await vmms.listJails(), []);
  });

  check("a VMM that is detached lives on and tells nothing more", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    await vmm.boot(room.hardware);
    await vmm.detach();
    assert.equal(await vmm.waitGone(20), false);
    await room.vmms.release(vmm.ref);
    assert.equal(await vmm.waitGone(0), true);
    assert.equal(vmm.gone.aborted, false);
  });

  check("a release kills what runs, also when its process was never recorded", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    const { process: _, ...unrecorded } = vmm.ref;
    await room.vmms.release(unrecorded);
    assert.equal(await vmm.waitGone(0), true);
    assert.deepEqual(await room.vmms.listJails(), []);
  });

  check("releasing twice, or what never was, is fine", async (room) => {
    const vmm = await room.vmms.launch(await room.spec());
    await room.vmms.release(vmm.ref);
    await room.vmms.release(vmm.ref);
    await room.vmms.release(MISSING);
  });

  check("a launch that is aborted throws the reason and leaves no jail", async (room) => {
    const reason = new Error("changed my mind");
    await assert.rejects(room.vmms.launch(await room.spec(), AbortSignal.abort(reason)), reason);
    assert.deepEqual(await room.vmms.listJails(), []);
  });

  check("ten VMMs live side by side", async (room) => {
    const specs = await Promise.all(Array.from({ length: 10 }, () => room.spec()));
    const vmms = await Promise.all(specs.map((spec) => room.vmms.launch(spec)));
    assert.equal(new Set(vmms.map(({ ref }) => ref.process.pid)).size, 10);
    await Promise.all(vmms.map((vmm) => vmm.boot(room.hardware)));
    await Promise.all(vmms.map((vmm) => room.vmms.release(vmm.ref)));
    assert.deepEqual(await room.vmms.listJails(), []);
  });
}

/** A VMM with the guest that was saved, which stands still. */
async function wake(room: VmmsUnderTest, saved: SaveTarget): Promise<Vmm> {
  const { spec, frozen } = await room.thaw(saved);
  const vmm = await room.vmms.launch(spec);
  await vmm.load(frozen);
  return vmm;
}
