import assert from "node:assert/strict";
import { chmod, mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pathToFileURL } from "node:url";
import { AppError } from "../../../src/contract/errors.ts";
import type { RemoteSnapshot } from "../../../src/contract/snapshot.ts";
import type { StorageOptions } from "../../../src/storage/storage.ts";
import { rootTest as test } from "../../support/root-test.ts";
import { MIB } from "./snapshot-support.ts";
import { type Place, openStorage, sha256 } from "./support.ts";
import {
  KINDS,
  QUICK,
  S,
  type Traveller,
  kindOf,
  noMoreDescriptorsThan,
  openDescriptors,
  planFor,
  remoteOf,
  withSnapshot,
} from "./travel-support.ts";

interface Journey extends Traveller {
  readonly there: Place;
  readonly remote: RemoteSnapshot;
}

/** A snapshot that was uploaded, and another host that has its image. */
async function uploaded(
  t: TestContext,
  artifacts: NonNullable<StorageOptions["artifacts"]> = {},
): Promise<Journey> {
  const place = await withSnapshot(t);
  const { storage, store, taken, imageDir } = place;
  const { artifacts: sent } = await storage.uploadArtifacts(S, planFor(taken, store), kindOf);
  for (const { artifact_id, completed_parts } of sent)
    store.complete(kindOf(artifact_id) ?? "", completed_parts);
  const there = await openStorage(t, {
    imageDir,
    fileUrlDirs: [imageDir],
    artifacts: { ...QUICK, ...artifacts },
  });
  await there.storage.localImage("slim");
  return { ...place, there, remote: remoteOf(taken, store) };
}

async function nothingIn({ root }: Place): Promise<void> {
  for (const folder of ["staging", "snapshots", "trash"])
    assert.deepEqual(await readdir(join(root, folder)), [], folder);
}

type Change = (artifact: RemoteSnapshot["artifacts"][number]) => object;

/** The request with the artifact of `kind` changed. */
function changed(remote: RemoteSnapshot, kind: string, change: Change | object): RemoteSnapshot {
  return {
    ...remote,
    artifacts: remote.artifacts.map((artifact) => ({
      ...artifact,
      ...(artifact.kind === kind
        ? typeof change === "function"
          ? (change as Change)(artifact)
          : change
        : {}),
    })),
  };
}

async function rejectsWith(
  work: Promise<unknown>,
  code: string,
  message: RegExp,
  details: object,
): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    for (const [key, value] of Object.entries(details)) assert.deepEqual(error.details?.[key], value, key);
    assert.doesNotMatch(`${error.message} ${JSON.stringify(error.details)}`, /secret/);
    return true;
  });
}

test("a snapshot goes from one root to another through a store: the same bytes, with their holes, sealed", async (t) => {
  const { root, there, remote, taken, store } = await uploaded(t);
  const before = await openDescriptors();
  const { manifest_content, ...records } = await there.storage.fetchSnapshot(remote);
  const { memoryBytes: _memory, stateBytes: _state, ...expected } = taken;
  assert.deepEqual(records, expected);
  assert.deepEqual(manifest_content, await there.storage.readManifest(S));
  for (const name of ["disk.img", "memory.img", "vmstate.bin", "manifest.json"]) {
    const [from, to] = [join(root, "snapshots", S, name), join(there.root, "snapshots", S, name)];
    assert.ok((await readFile(from)).equals(await readFile(to)), name);
    const [one, other] = [await stat(from), await stat(to)];
    assert.deepEqual([other.uid, other.gid, other.mode & 0o777], [0, 0, one.mode & 0o777], name);
  }
  const { blocks, size } = await stat(join(there.root, "snapshots", S, "memory.img"));
  assert.equal(size, 16 * MIB);
  assert.ok(blocks * 512 < 200_000, `${blocks} blocks`);
  assert.deepEqual(await readdir(join(there.root, "staging")), []);
  await there.storage.checkSnapshot(S, "all");
  assert.deepEqual(Object.keys(await there.storage.memoryFiles(S)), ["memory", "vmstate"]);
  await noMoreDescriptorsThan(before);

  // What was known when it came: the files are not read again.
  await chmod(join(there.root, "snapshots", S), 0o700);
  const proof = JSON.parse(await readFile(join(there.root, "snapshots", S, "proof.json"), "utf8"));
  assert.deepEqual(Object.keys(proof).sort(), ["disk.img", "manifest.json", "memory.img", "vmstate.bin"]);
  assert.equal(
    proof["memory.img"].sha256,
    remote.artifacts.find(({ kind }) => kind === "memory")?.sha256_hex,
  );
  assert.deepEqual(store.pathsOf("GET").slice(0, 1), ["/objects/manifest"]);
});

test("a manifest is kept byte by byte, however it is written", async (t) => {
  const { storage, there, remote, store } = await uploaded(t);
  const text = Buffer.from(JSON.stringify({ later: [1], ...(await storage.readManifest(S)) }));
  await store.put("manifest", text);
  const named = changed(remote, "manifest", { size_bytes: text.length, sha256_hex: sha256(text) });
  const { manifest } = await there.storage.fetchSnapshot(named);
  assert.equal(manifest.sha256_hex, sha256(text));
  assert.deepEqual(await readFile(join(there.root, "snapshots", S, "manifest.json")), text);
});

test("a snapshot of a disk alone travels, too", async (t) => {
  const { storage, there, remote, store } = await uploaded(t);
  const { memory: _memory, vmstate: _vmstate, guest: _guest, ...rest } = await storage.readManifest(S);
  const text = Buffer.from(JSON.stringify({ ...rest, memory_kind: "none" }));
  await store.put("manifest", text);
  const named = changed(remote, "manifest", { size_bytes: text.length, sha256_hex: sha256(text) });
  const artifacts = named.artifacts.filter(({ kind }) => kind === "disk" || kind === "manifest");
  const fetched = await there.storage.fetchSnapshot({ ...named, artifacts });
  assert.equal(fetched.memory, undefined);
  assert.deepEqual((await readdir(join(there.root, "snapshots", S))).sort(), [
    "disk.img",
    "manifest.json",
    "proof.json",
  ]);
  await there.storage.checkSnapshot(S, "all");
});

test("files of allowed folders are taken as they are from a store", async (t) => {
  const { root, there, remote, imageDir, store } = await uploaded(t);
  const folder = join(imageDir, "carried");
  await mkdir(folder);
  const artifacts = await Promise.all(
    remote.artifacts.map(async ({ kind, ...artifact }) => {
      const name = {
        disk: "disk.img",
        memory: "memory.img",
        vmstate: "vmstate.bin",
        manifest: "manifest.json",
      }[kind];
      await writeFile(join(folder, kind), await readFile(join(root, "snapshots", S, name)));
      return { ...artifact, kind, download_url: pathToFileURL(join(folder, kind)).href };
    }),
  );
  await there.storage.fetchSnapshot({ ...remote, artifacts });
  await there.storage.checkSnapshot(S, "all");
  const { blocks } = await stat(join(there.root, "snapshots", S, "memory.img"));
  assert.ok(blocks * 512 < 200_000, `${blocks} blocks`);
  assert.deepEqual(store.pathsOf("GET"), []);

  await there.storage.removeSnapshot(S);
  await writeFile(join(folder, "memory"), "short");
  const short = there.storage.fetchSnapshot({ ...remote, artifacts });
  await rejectsWith(short, "snapshot_invalid", /memory/, { artifact: "memory", found: "5 bytes" });
  const elsewhere = changed(remote, "disk", { download_url: "file:///etc/passwd" });
  await rejectsWith(there.storage.fetchSnapshot(elsewhere), "artifact_refused", /passwd/, {});
  await nothingIn(there);
});

test("a request that cannot be right is refused by its field, and nobody is asked", async (t) => {
  const { there, remote, store } = await uploaded(t, { maxBytes: 20 * MIB });
  const without = (...kinds: string[]): RemoteSnapshot => ({
    ...remote,
    artifacts: remote.artifacts.filter(({ kind }) => !kinds.includes(kind)),
  });
  const twice: RemoteSnapshot = {
    ...remote,
    artifacts: [...remote.artifacts, ...remote.artifacts.slice(0, 1)],
  };
  const lacking = (kind: string, field: "download_url" | "sha256_hex"): RemoteSnapshot => ({
    ...remote,
    artifacts: remote.artifacts.map((artifact) => {
      const { [field]: _gone, ...rest } = artifact;
      return artifact.kind === kind ? rest : artifact;
    }),
  });
  const cases: [RemoteSnapshot, string, RegExp][] = [
    [without("disk"), "snapshot.artifacts", /no disk/],
    [without("manifest"), "snapshot.artifacts", /no manifest/],
    [without("memory"), "snapshot.artifacts", /only one of memory and vmstate/],
    [without("vmstate"), "snapshot.artifacts", /only one of memory and vmstate/],
    [twice, "snapshot.artifacts.4.kind", /another/],
    [lacking("memory", "download_url"), "snapshot.artifacts.1.download_url", /needed/],
    [lacking("manifest", "sha256_hex"), "snapshot.artifacts.3.sha256_hex", /needed/],
    [changed(remote, "memory", { size_bytes: 21 * MIB }), "snapshot.artifacts.1.size_bytes", /at most/],
    [changed(remote, "manifest", { size_bytes: 2 * MIB }), "snapshot.artifacts.3.size_bytes", /at most/],
  ];
  for (const [request, field, message] of cases)
    await rejectsWith(there.storage.fetchSnapshot(request), "bad_request", message, { field });
  for (const url of ["ftp://x/y", "http://u:p@127.0.0.1/", "no URL"]) {
    const request = changed(remote, "disk", { download_url: url });
    await rejectsWith(there.storage.fetchSnapshot(request), "artifact_refused", /./, {});
  }
  assert.deepEqual(store.pathsOf("GET"), []);
  await nothingIn(there);
});

test("a request that its manifest contradicts is refused by its field, before the rest is fetched", async (t) => {
  const { there, remote, store } = await uploaded(t);
  const cases: [RemoteSnapshot, string][] = [
    [{ ...remote, snapshot_id: "z" }, "snapshot.snapshot_id"],
    [{ ...remote, machine_id: "z" }, "snapshot.machine_id"],
    [
      changed(remote, "disk", ({ size_bytes }) => ({ size_bytes: size_bytes + 1 })),
      "snapshot.artifacts.0.size_bytes",
    ],
    [changed(remote, "memory", { sha256_hex: sha256("other") }), "snapshot.artifacts.1.sha256_hex"],
    [
      { ...remote, artifacts: remote.artifacts.filter(({ kind }) => kind === "disk" || kind === "manifest") },
      "snapshot.artifacts",
    ],
  ];
  for (const [request, field] of cases)
    await rejectsWith(there.storage.fetchSnapshot(request), "bad_request", /manifest/, { field });
  assert.deepEqual(new Set(store.pathsOf("GET")), new Set(["/objects/manifest"]));
  await nothingIn(there);
});

test("a manifest that cannot be used is snapshot_invalid", async (t) => {
  const { storage, there, remote, store } = await uploaded(t);
  const good = await storage.readManifest(S);
  const texts = [
    "no JSON",
    "{}",
    JSON.stringify({ ...good, vcpus: "two" }),
    JSON.stringify({ ...good, memory_kind: "none" }),
  ];
  for (const text of texts) {
    await store.put("manifest", Buffer.from(text));
    const named = changed(remote, "manifest", { size_bytes: text.length, sha256_hex: sha256(text) });
    await rejectsWith(there.storage.fetchSnapshot(named), "snapshot_invalid", /manifest/, {
      artifact: "manifest",
    });
  }
  await nothingIn(there);
});

test("without the image's kernel and initrd the error says which is missing and what to do", async (t) => {
  const { remote, image, store } = await uploaded(t);
  const bare = await openStorage(t, { artifacts: QUICK });
  await rejectsWith(bare.storage.fetchSnapshot(remote), "image_invalid", /create a machine from it once/, {
    missing: "kernel",
    sha256: image.kernel_sha256,
    image: "slim",
  });
  assert.deepEqual(store.pathsOf("GET"), ["/objects/manifest"]);
  await nothingIn(bare);
});

for (const kind of KINDS) {
  test(`a ${kind} that is not what it should be is found while it comes, and nothing is left`, async (t) => {
    const { there, remote, store } = await uploaded(t);
    const before = await openDescriptors();
    const get = `GET /objects/${kind}`;
    const details = { artifact: kind };
    store.trouble(get, { wrongByte: true });
    await rejectsWith(there.storage.fetchSnapshot(remote), "snapshot_invalid", /SHA-256/, details);
    store.trouble(get, { shortenedTo: 1000 });
    await rejectsWith(there.storage.fetchSnapshot(remote), "snapshot_invalid", /1000 bytes/, details);
    const bytes: Buffer[] = [];
    for await (const piece of store.read(kind)) bytes.push(piece);
    await store.put(kind, Buffer.concat([...bytes, Buffer.from("more")]));
    await rejectsWith(there.storage.fetchSnapshot(remote), "snapshot_invalid", /more/, details);
    await nothingIn(there);
    await store.put(kind, Buffer.concat(bytes));
    await there.storage.fetchSnapshot(remote);
    await noMoreDescriptorsThan(before);
  });

  test(`a download of the ${kind} that breaks off goes on where it broke; one that does not come is snapshot_unavailable`, async (t) => {
    const { there, remote, store } = await uploaded(t);
    const get = `GET /objects/${kind}`;
    const details = { artifact: kind };
    for (const status of [403, 404]) {
      store.trouble(get, { status });
      await rejectsWith(
        there.storage.fetchSnapshot(remote),
        "snapshot_unavailable",
        new RegExp(`${status}`),
        details,
      );
    }
    store.trouble(get, { status: 503, times: 10 });
    await rejectsWith(there.storage.fetchSnapshot(remote), "snapshot_unavailable", /503/, details);
    store.trouble(get, { after: 10, times: 10 });
    await rejectsWith(there.storage.fetchSnapshot(remote), "snapshot_unavailable", /./, details);
    await nothingIn(there);

    store.requests.length = 0;
    store.trouble(get, { after: 301, times: 3 });
    await there.storage.fetchSnapshot(remote);
    const ranges = store.requests
      .filter(({ path }) => path === `/objects/${kind}`)
      .map(({ headers }) => headers.range);
    assert.equal(ranges.length, 4);
    assert.ok(
      ranges.slice(1).every((range) => /^bytes=\d+-$/.test(range ?? "")),
      String(ranges),
    );
    await there.storage.checkSnapshot(S, "all");
  });
}

test("an outside server does not lead a download inside", async (t) => {
  const { there, remote, store } = await uploaded(t, { isInside: (address) => address !== "127.0.0.1" });
  store.trouble("GET /objects/disk", { redirect: "http://[::1]:9/x" });
  await rejectsWith(there.storage.fetchSnapshot(remote), "artifact_refused", /inside/, {});
  await nothingIn(there);
});

test("a snapshot that is there, or on its way here, is not fetched again", async (t) => {
  const { there, remote, store } = await uploaded(t);
  store.trouble("GET /objects/manifest", { slowMs: 100 });
  const both = [there.storage.fetchSnapshot(remote), there.storage.fetchSnapshot(remote)];
  const refused = (await Promise.allSettled(both)).filter(({ status }) => status === "rejected");
  assert.equal(refused.length, 1);
  await rejectsWith(Promise.all(both), "snapshot_exists", /there already/, {});
  await rejectsWith(there.storage.fetchSnapshot(remote), "snapshot_exists", /there already/, {});
  await there.storage.checkSnapshot(S, "all");
});

test("without room for all of it nobody is asked", async (t) => {
  const { there, remote, store } = await uploaded(t, { maxBytes: 2 ** 50 });
  const request = changed(remote, "disk", { size_bytes: 2 ** 49 });
  await rejectsWith(there.storage.fetchSnapshot(request), "disk_full", /free/, {});
  assert.deepEqual(store.pathsOf("GET"), []);
  await nothingIn(there);
});

test("a fetch that is ended in the middle ends at once, with the reason, and leaves nothing", async (t) => {
  const { there, remote, store } = await uploaded(t);
  const before = await openDescriptors();
  for (const kind of KINDS) {
    const controller = new AbortController();
    store.trouble(`GET /objects/${kind}`, { after: 500, ending: "stall" });
    const reason = new Error("enough");
    const fetching = there.storage.fetchSnapshot(remote, controller.signal);
    while (!store.pathsOf("GET").includes(`/objects/${kind}`))
      await new Promise((resolve) => setTimeout(resolve, 5));
    const from = Date.now();
    controller.abort(reason);
    await assert.rejects(fetching, (error) => error === reason);
    assert.ok(Date.now() - from < 1000);
    await nothingIn(there);
    store.requests.length = 0;
  }
  await assert.rejects(there.storage.fetchSnapshot(remote, AbortSignal.abort(new Error("before"))), /before/);
  assert.deepEqual(store.requests, []);
  await noMoreDescriptorsThan(before);
});
