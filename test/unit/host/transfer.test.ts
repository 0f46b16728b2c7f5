import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { RemoteSnapshot } from "../../../src/contract/snapshot.ts";
import { makeContext } from "../../../src/host/context.ts";
import { type FakeHost, makeFakeHost } from "../../support/fake-host.ts";
import { assertMatches, restarted } from "../../support/host-trouble.ts";

const one = machineId("one");
const s1 = snapshotId("s1");
const far = snapshotId("far");

const codeOf = (error: unknown): unknown => (error instanceof AppError ? error.code : error);
const refusedAs = (code: string) => (error: unknown) => codeOf(error) === code;

async function withSnapshot(): Promise<FakeHost> {
  const fakes = await makeFakeHost();
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.snapshot(one, { snapshot_id: "s1" }, fakes.trace());
  return fakes;
}

/** A host beside another from which a snapshot can be had, and what a restore says of that. */
async function withFar(fakes?: FakeHost): Promise<{ fakes: FakeHost; remote: RemoteSnapshot }> {
  await using source = await makeFakeHost();
  await source.host.create({ machine_id: "theirs" }, source.trace());
  await source.host.snapshot(machineId("theirs"), { snapshot_id: "far" }, source.trace());
  const here = fakes ?? (await makeFakeHost());
  here.storage.remote.set(far, await source.storage.readManifest(far));
  const { artifacts } = source.host.getSnapshot(far);
  const remote: RemoteSnapshot = {
    snapshot_id: "far",
    machine_id: "theirs",
    image_id: "debian-slim",
    artifacts: artifacts.map(({ id, kind, name, size_bytes, sha256_hex = "" }) => {
      const download_url = `http://elsewhere/${id}?signature=1`;
      return { id, kind, name, size_bytes, sha256_hex, download_url };
    }),
  };
  return { fakes: here, remote };
}

const restore = ({ host }: FakeHost, machine_id: string, snapshot: RemoteSnapshot) =>
  host.restore(far, { machine_id, snapshot }, host.trace());
const fetches = ({ storage }: FakeHost): number =>
  storage.calls.filter((call) => call === "fetchSnapshot far").length;

test("an artifact is opened by its id, and stays open when its snapshot is deleted", async () => {
  await using fakes = await withSnapshot();
  await using disk = await fakes.host.openArtifact(s1, "s1-disk");
  assert.equal(disk.size_bytes, 512 * 2 ** 20);
  await fakes.host.deleteSnapshot(s1, fakes.trace());
  let bytes = 0;
  for await (const chunk of disk.stream(10, 20)) bytes += (chunk as Buffer).length;
  assert.equal(bytes, 10);
  await assert.rejects(fakes.host.openArtifact(s1, "s1-disk"), refusedAs("snapshot_not_found"));
});

test("an artifact that a snapshot has not is told from a snapshot that is not there", async () => {
  await using fakes = await withSnapshot();
  for (const id of ["s1-memory", "s2-disk", "disk"])
    await assert.rejects(fakes.host.openArtifact(s1, id), refusedAs("artifact_not_found"));
  await assert.rejects(fakes.host.openArtifact(far, "far-disk"), refusedAs("snapshot_not_found"));
});

const PLAN = {
  artifacts: [
    {
      artifact_id: "s1-disk",
      object_key: "k",
      upload_id: "u",
      parts: [{ part_number: 1, offset_bytes: 0, size_bytes: 512 * 2 ** 20, upload_url: "http://store/1" }],
    },
  ],
};

test("an upload sends what the ids mean, and a delete of the snapshot waits for it", async () => {
  await using fakes = await withSnapshot();
  const { promise, resolve } = Promise.withResolvers<void>();
  const upload = fakes.storage.uploadArtifacts.bind(fakes.storage);
  fakes.storage.uploadArtifacts = async (...given) => {
    await promise;
    return await upload(...given);
  };
  const uploading = fakes.host.upload(s1, PLAN, fakes.trace());
  const deleting = fakes.host.deleteSnapshot(s1, fakes.trace());
  await sleep(20);
  assert.ok(fakes.storage.snapshots.has(s1));
  resolve();
  const { artifacts } = await uploading;
  assert.deepEqual(
    artifacts.map(({ artifact_id, completed_parts }) => [artifact_id, completed_parts.length]),
    [["s1-disk", 1]],
  );
  await deleting;
  await assert.rejects(fakes.host.upload(s1, PLAN, fakes.trace()), refusedAs("snapshot_not_found"));
});

test("the daemon's end breaks an upload off", async () => {
  const fakes = await makeFakeHost({ closeTimeoutMs: 20 });
  await fakes.host.create({ machine_id: "one" }, fakes.trace());
  await fakes.host.snapshot(one, { snapshot_id: "s1" }, fakes.trace());
  fakes.storage.uploadArtifacts = (_id, _plan, _kindOf, signal) => {
    const { promise, reject } = Promise.withResolvers<never>();
    signal?.addEventListener("abort", () => reject(signal.reason as Error));
    return promise;
  };
  const refused = assert.rejects(fakes.host.upload(s1, PLAN, fakes.trace()), refusedAs("shutting_down"));
  await fakes.host.close();
  await refused;
});

test("a snapshot of another host is fetched, becomes one of this, and stays for the next restore", async () => {
  const { fakes, remote } = await withFar();
  await using _ = fakes;
  await restore(fakes, "a", remote);
  const { machine_id, artifacts, disk_clone } = fakes.host.getSnapshot(far);
  assert.deepEqual([machine_id, disk_clone], ["theirs", "copy"]);
  assert.deepEqual(
    artifacts.map(({ id, sha256_hex }) => [id, sha256_hex]),
    remote.artifacts.map(({ id, sha256_hex }) => [id, sha256_hex]),
  );
  await restore(fakes, "b", remote);
  await fakes.host.restore(far, { machine_id: "c" }, fakes.trace());
  assert.equal(fetches(fakes), 1);
  await assertMatches(fakes, "three machines of it");
  await fakes.host.deleteSnapshot(far, fakes.trace());
  await assertMatches(fakes, "and it is deleted like any other");
});

test("restores of one distant snapshot at the same time fetch it once", async () => {
  const { fakes, remote } = await withFar();
  await using _ = fakes;
  await Promise.all(["a", "b", "c"].map((id) => restore(fakes, id, remote)));
  assert.equal(fetches(fakes), 1);
  await assertMatches(fakes, "three at once");
});

test("a fetch that fails, and a restore that fails after it, leave no snapshot", async () => {
  const { fakes, remote } = await withFar();
  await using _ = fakes;
  fakes.vmms.fail.boot = new AppError("vmm_failed", "no");
  await assert.rejects(restore(fakes, "a", remote), refusedAs("vmm_failed"));
  await assertMatches(fakes, "the restore failed");
  assert.equal(fakes.host.listMachines().length, 0);
  assert.throws(() => fakes.host.getSnapshot(far), refusedAs("snapshot_not_found"));
  delete fakes.vmms.fail.boot;
  fakes.storage.remote.delete(far);
  await assert.rejects(restore(fakes, "a", remote), refusedAs("snapshot_unavailable"));
  await assertMatches(fakes, "the fetch failed");
});

test("a fetched snapshot stays when another restore of it succeeds, whoever fetched it", async () => {
  const { fakes, remote } = await withFar();
  await using _ = fakes;
  const launch = fakes.vmms.launch.bind(fakes.vmms);
  let first = true;
  fakes.vmms.launch = async (...given) => {
    if (!first) return await launch(...given);
    first = false;
    await sleep(20);
    throw new AppError("vmm_failed", "the first one fails");
  };
  const ends = await Promise.allSettled(["a", "b"].map((id) => restore(fakes, id, remote)));
  assert.deepEqual(ends.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  await assertMatches(fakes, "one of two failed");
  assert.equal(fakes.host.getSnapshot(far).id, far);
});

test("a delete of a machine that waits for another's fetch does not wait for that", async () => {
  const { fakes, remote } = await withFar();
  await using _ = fakes;
  const { promise, resolve } = Promise.withResolvers<void>();
  const fetch = fakes.storage.fetchSnapshot.bind(fakes.storage);
  fakes.storage.fetchSnapshot = async (...given) => {
    await promise;
    return await fetch(...given);
  };
  const first = restore(fakes, "a", remote);
  const second = assert.rejects(restore(fakes, "b", remote), refusedAs("operation_cancelled"));
  await sleep(10);
  await fakes.host.delete(machineId("b"), fakes.trace());
  await second;
  resolve();
  await first;
  await assertMatches(fakes, "only one was made");
});

test("a manifest whose time is none is refused, and nothing of its snapshot stays", async () => {
  const { fakes, remote } = await withFar();
  await using _ = fakes;
  const manifest = fakes.storage.remote.get(far);
  assert.ok(manifest !== undefined);
  fakes.storage.remote.set(far, { ...manifest, created_at: "yesterday" });
  await assert.rejects(restore(fakes, "a", remote), refusedAs("snapshot_invalid"));
  await assertMatches(fakes, "it was refused");
});

test("a fetch whose restore a crash cut off is taken back by the next start, and kept where a machine came of it", async () => {
  for (const used of [false, true]) {
    const { fakes, remote } = await withFar();
    await restore(fakes, "a", remote);
    await fakes.host.close();
    const started_at = new Date().toISOString();
    const record = {
      id: "fetch-snapshot:far",
      kind: "fetch-snapshot",
      snapshot_id: far,
      started_at,
    } as const;
    await fakes.state.commit({ put: "operation", record });
    if (!used) {
      const of = { id: "restore:a", kind: "restore", machine_id: machineId("a"), started_at } as const;
      const machine = fakes.state.state.machines.get(machineId("a"));
      assert.ok(machine !== undefined);
      await fakes.state.commit(
        { put: "operation", record: of },
        { put: "machine", record: { ...machine, phase: "starting" } },
      );
    }
    await using after = await restarted(fakes, undefined);
    await assertMatches(after, used ? "used" : "cut off");
    assert.equal(after.storage.snapshots.has(far), used);
  }
});

test("work that belongs to no machine is ended only with the daemon", () => {
  const context = makeContext({} as never, { memoryOvercommit: 1 } as never);
  using upload = context.creations.enter();
  using create = context.creations.enter(one);
  context.creations.end(new AppError("operation_cancelled", "deleted"), one);
  assert.deepEqual([upload.signal.aborted, create.signal.aborted], [false, true]);
  context.creations.end(new AppError("shutting_down", "the end"));
  assert.equal(upload.signal.aborted, true);
});
