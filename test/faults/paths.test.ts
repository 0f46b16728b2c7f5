import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync, linkSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { run } from "../../src/system/run.ts";
import type { Answer } from "../support/request.ts";
import { type TinyArtifact, vmmOf } from "../support/tiny-machine.ts";
import type { World } from "../support/world.ts";
import { FULL, inStubWorld, stateDigest } from "./fuzz-world.ts";
import { Canary } from "./paths-canary.ts";

/** What a VMM that a guest took over does in its jail: paths-hostile-vmm.c. */
const DEEDS = [
  "links",
  "pipes",
  "folders",
  "names",
  "deep",
  "large",
  "save-links",
  "save-folders",
  "save-aside",
  "save-names",
  "save-later",
  "links,save-links,names,large",
  "folders,deep,save-folders",
] as const;

/** Each alone in the long form; in the short one those that do several at once. */
const CHOSEN = FULL ? DEEDS : DEEDS.filter((deeds) => deeds.includes(","));
const FLIP_ROUNDS = FULL ? 300 : 10;

async function buildHostile(folder: string): Promise<string> {
  const program = join(folder, "hostile-vmm");
  const source = join(import.meta.dirname, "paths-hostile-vmm.c");
  const flags = ["-D_GNU_SOURCE", "-O1", "-Wall", "-Wno-unused-result", "-static"];
  await run(["gcc", ...flags, "-o", program, source], { timeoutMs: 60_000 });
  return program;
}

/** Answers as they come, each looked through for the secret. */
class Watched {
  readonly #world: World;
  readonly #canary: Canary;

  constructor(world: World, canary: Canary) {
    this.#world = world;
    this.#canary = canary;
  }

  async ask(
    method: "get" | "post" | "delete",
    path: string,
    body?: object,
    allowed: readonly (number | string)[] = [200, 201, 204],
  ): Promise<Answer> {
    const answer = await (method === "post" ? this.#world.post(path, body) : this.#world[method](path));
    const said = JSON.stringify(answer.body) ?? "";
    assert.ok(!said.includes(this.#canary.secret), `${method} ${path} tells the secret`);
    assert.ok(
      allowed.includes(answer.status) || allowed.includes(answer.body?.code),
      `${method} ${path}: ${answer.status} ${said}`,
    );
    return answer;
  }
}

/** Neither the daemon's folder nor its log holds the secret. */
async function assertNotKept(world: World, canary: Canary): Promise<void> {
  const { stdout } = await run(["grep", "-rlsF", "-D", "skip", canary.secret, world.rootDir, world.logFile], {
    okCodes: [0, 1, 2],
    timeoutMs: 60_000,
  });
  assert.equal(stdout, "", "the secret was copied");
}

/** Bytes of a file of a snapshot, as a client gets them. */
async function bytesOf(world: World, path: string): Promise<{ status: number; bytes: Buffer; etag: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{
    status: number;
    bytes: Buffer;
    etag: string;
  }>();
  httpRequest({ socketPath: world.socket, path, agent: false }, (response) => {
    buffer(response).then(
      (bytes) => resolve({ status: response.statusCode ?? 0, bytes, etag: response.headers.etag ?? "" }),
      reject,
    );
  })
    .on("error", reject)
    .end();
  return await promise;
}

async function assertArtifactsWhole(world: World, snapshot: string): Promise<void> {
  const { body } = await world.get(`/snapshots/${snapshot}`);
  for (const { id, sha256_hex } of body.snapshot.artifacts as { id: string; sha256_hex: string }[]) {
    const { status, bytes } = await bytesOf(world, `/snapshots/${snapshot}/artifacts/${id}`);
    assert.equal(status, 200);
    assert.equal(
      createHash("sha256").update(bytes).digest("hex"),
      sha256_hex,
      `${id} is not what was sealed`,
    );
  }
}

async function deedsDone(world: World, id: string): Promise<void> {
  const log = join(world.rootDir, "machines", id, "vmm.log");
  for (let attempt = 0; attempt < 200; attempt += 1, await sleep(20))
    if (readFileSync(log, "latin1").includes("deeds done")) return;
  throw new Error(`the VMM of ${id} did not do what it was told:\n${readFileSync(log, "latin1")}`);
}

test("a VMM that does what it can in its jail reaches nothing outside, and everything of it goes", async (t) => {
  using canary = new Canary();
  await inStubWorld(
    async (world, { body }) => {
      const watched = new Watched(world, canary);
      for (const [index, deeds] of CHOSEN.entries()) {
        await t.test(deeds, async () => {
          const id = `bad-${index}`;
          const machine = `/machines/${id}`;
          const boot_args = `hostile=${deeds} canary=${canary.path}`;
          const create = { machine_id: id, ...body, boot_args, track_dirty_pages: true };
          const made = await watched.ask("post", "/machines", create);
          await deedsDone(world, id);
          const saved = [201, "vmm_failed", "wrong_phase", "disk_full"];
          const memory = await watched.ask(
            "post",
            `${machine}/snapshots`,
            { snapshot_id: `${id}-m`, memory: true },
            saved,
          );
          if (/save-(links|folders|aside|names)/.test(deeds)) assert.equal(memory.body.code, "vmm_failed");
          if (memory.status === 201) {
            await watched.ask("post", `${machine}/pause`, undefined, saved.concat(200));
            await watched.ask("post", `${machine}/resume`, undefined, saved.concat(200));
            await assertArtifactsWhole(world, `${id}-m`);
            const woken = { machine_id: `${id}-w`, ready: "started" };
            await watched.ask("post", `/snapshots/${id}-m/restore`, woken, [201, "vmm_failed"]);
          }
          const disk = await watched.ask("post", `${machine}/snapshots`, { snapshot_id: `${id}-d` });
          assert.equal(disk.status, 201);
          await watched.ask("get", machine);
          await watched.ask("get", "/audit");
          await watched.ask("post", "/audit/repair");
          canary.assertUntouched();

          await world.endDaemon("SIGKILL");
          await world.startDaemon();
          await watched.ask("get", machine);
          await watched.ask("post", `${machine}/stop`);
          await watched.ask("post", `${machine}/start`);
          await deedsDone(world, id);
          process.kill(vmmOf((await world.get(machine)).body.machine as Machine).pid, "SIGKILL");
          for (let attempt = 0; attempt < 200; attempt += 1, await sleep(20))
            if ((await watched.ask("get", machine)).body.machine.phase === "failed") break;
          await watched.ask("post", `${machine}/start`);
          for (const path of [machine, `/machines/${id}-w`, `/snapshots/${id}-m`, `/snapshots/${id}-d`])
            await watched.ask("delete", path);
          canary.assertUntouched();
          await assertNotKept(world, canary);
          await world.assertMatchesState();
          await world.assertAuditClean();
          assert.equal(made.status, 201);
        });
      }
    },
    { vmm: buildHostile, env: { FIRECRACKER_HOST_STOP_TIMEOUT: "100ms" } },
  );
  canary.assertUntouched();
  canary.assertReadsShow();
});

/** What somebody with a foot in the daemon's folders put there, and what must come of it. */
interface Planted {
  readonly what: string;
  readonly plant: (world: World, canary: Canary) => void;
  readonly outcome: (world: World, watched: Watched) => Promise<unknown>;
}

/** Puts `target`, a link, in the place of a file, which is kept beside the root. */
function swap(path: string, target: string): void {
  rmSync(path, { recursive: true, force: true });
  symlinkSync(target, path);
}

/** Only root can have done this, and no code is made for it: that it fails in whatever way is enough. */
const MEDDLED = [409, 422, 500, 502];

/** The id of a file of snapshot `s`. */
async function artifactOf(world: World, kind: string): Promise<string> {
  const { artifacts } = (await world.get("/snapshots/s")).body.snapshot;
  const found = (artifacts as { id: string; kind: string }[]).find((artifact) => artifact.kind === kind);
  assert.ok(found !== undefined);
  return found.id;
}

const PLANTED: readonly Planted[] = [
  ...(["disk", "memory", "vmstate"] as const).map((kind) => ({
    what: `the ${kind} of a snapshot is a link`,
    plant: ({ rootDir }: World, { path }: Canary) => {
      const folder = join(rootDir, "snapshots/s");
      const { [kind]: file } = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
      swap(join(folder, file.name), join(path, "secret"));
    },
    outcome: async (world: World, watched: Watched) => {
      assert.equal(
        (await bytesOf(world, `/snapshots/s/artifacts/${await artifactOf(world, kind)}`)).status,
        422,
      );
      const restore = { machine_id: "woken", ready: "started" };
      await watched.ask("post", "/snapshots/s/restore", restore, ["snapshot_invalid"]);
    },
  })),
  {
    what: "the manifest of a snapshot is a link",
    plant: ({ rootDir }, { path }) => swap(join(rootDir, "snapshots/s/manifest.json"), join(path, "secret")),
    outcome: async (world, watched) => {
      assert.equal(
        (await bytesOf(world, `/snapshots/s/artifacts/${await artifactOf(world, "manifest")}`)).status,
        422,
      );
      const restore = { machine_id: "woken", ready: "started" };
      await watched.ask("post", "/snapshots/s/restore", restore, ["snapshot_invalid"]);
    },
  },
  {
    what: "the folder of a snapshot is a link",
    plant: ({ rootDir }, { path }) => swap(join(rootDir, "snapshots/s"), join(path, "inner")),
    outcome: (_, watched) => watched.ask("delete", "/snapshots/s"),
  },
  {
    what: "a snapshot's folder holds links and folders with links",
    plant: ({ rootDir }, { path }) => {
      const folder = join(rootDir, "snapshots/s/more");
      mkdirSync(folder);
      symlinkSync(path, join(folder, "out"));
      symlinkSync(join(path, "inner/"), join(rootDir, "snapshots/s/inner"));
    },
    outcome: (_, watched) => watched.ask("delete", "/snapshots/s"),
  },
  {
    what: "a machine's logs and seed are links",
    plant: ({ rootDir }, { path }) => {
      for (const name of ["console.log", "vmm.log", "metrics.log", "seed.img", "extra"])
        swap(join(rootDir, "machines/one", name), join(path, "secret"));
    },
    outcome: async (world, watched) => {
      process.kill(vmmOf((await world.get("/machines/one")).body.machine as Machine).pid, "SIGKILL");
      for (let attempt = 0; attempt < 200; attempt += 1, await sleep(20))
        if ((await watched.ask("get", "/machines/one")).body.machine.phase === "failed") break;
      await watched.ask("post", "/machines/one/start", undefined, MEDDLED);
      await watched.ask("delete", "/machines/one");
    },
  },
  {
    what: "a machine's disk is a link",
    plant: ({ rootDir }, { path }) =>
      swap(join(rootDir, "machines/one/disk.img"), join(path, "inner/disk.img")),
    outcome: async (_, watched) => {
      await watched.ask("get", "/audit");
      await watched.ask("post", "/audit/repair");
      await watched.ask("post", "/machines/one/snapshots", { snapshot_id: "d" }, MEDDLED);
      await watched.ask("post", "/machines/one/resize", { storage_bytes: 2 ** 26 }, MEDDLED);
      await watched.ask("post", "/machines/one/stop", undefined, [204, ...MEDDLED]);
      await watched.ask("post", "/machines/one/start", undefined, MEDDLED);
      await watched.ask("delete", "/machines/one");
    },
  },
  {
    what: "links lie where machines, snapshots, staging, trash and jails do",
    plant: ({ rootDir }, { path }) => {
      for (const folder of ["machines", "snapshots", "staging", "trash", "jails"])
        symlinkSync(join(path, "inner"), join(rootDir, folder, "nobody"));
      symlinkSync(join(path, "secret"), join(rootDir, "staging", "file-1"));
      symlinkSync(join(path, "inner"), join(rootDir, "staging", "snapshot-new"));
    },
    outcome: async (world, watched) => {
      await watched.ask("post", "/audit/repair");
      await world.endDaemon("SIGKILL");
      await world.startDaemon();
      await watched.ask("post", "/machines/one/snapshots", { snapshot_id: "new" });
      await watched.ask("delete", "/snapshots/new");
      await watched.ask("delete", "/snapshots/nobody");
      await watched.ask("delete", "/machines/nobody");
      rmSync(join(world.rootDir, "jails", "nobody"), { force: true });
    },
  },
];

test("links in the daemon's folders lead nobody out of them", async (t) => {
  using canary = new Canary();
  await inStubWorld(async (world, { body }) => {
    const watched = new Watched(world, canary);
    for (const { what, plant, outcome } of PLANTED) {
      await t.test(what, async () => {
        await watched.ask("post", "/machines", { machine_id: "one", ...body });
        await watched.ask("post", "/machines/one/snapshots", { snapshot_id: "s", memory: true });
        plant(world, canary);
        await outcome(world, watched);
        canary.assertUntouched();
        for (const path of ["/machines/woken", "/machines/one", "/snapshots/s", "/snapshots/d"])
          await watched.ask("delete", path);
        await watched.ask("post", "/audit/repair");
        canary.assertUntouched();
        await assertNotKept(world, canary);
        await world.assertMatchesState();
        await world.assertAuditClean();
      });
    }
  });
  canary.assertReadsShow();
});

/** File URLs that leave the folder which the setting allows, or name what is no file. */
function escapes({ dir }: TinyArtifact, { path }: Canary): readonly string[] {
  const secret = join(path, "secret");
  symlinkSync(secret, join(dir, "link"));
  symlinkSync(path, join(dir, "out"));
  symlinkSync("link", join(dir, "chain"));
  symlinkSync("loop", join(dir, "loop"));
  mkdirSync(join(dir, "folder"));
  execFileSync("mkfifo", [join(dir, "pipe")]);
  execFileSync("mknod", [join(dir, "device"), "c", "1", "5"]);
  const up = "..%2f".repeat(10);
  return [
    `file://${secret}`,
    `file://${dir}/../${secret}`,
    `file://${dir}/link`,
    `file://${dir}/chain`,
    `file://${dir}/out/secret`,
    `file://${dir}/out/inner/../secret`,
    `file://${dir}/loop`,
    `file://${dir}/folder`,
    `file://${dir}/pipe`,
    `file://${dir}/device`,
    `file://${dir}/${up}${secret.slice(1)}`,
    `file://${dir}/%2e%2e/%2e%2e/%2e%2e${secret}`,
    `file://${dir}/kernel.elf%00.txt`,
    `file://${dir}`,
    `file://${dir}x/secret`,
    `file://elsewhere${dir}/kernel.elf`,
    "file:///proc/self/environ",
    "file:///proc/self/fd/0",
    "file:///dev/zero",
    "file:relative",
  ];
}

test("file URLs do not lead out of the folders that are allowed", async () => {
  using canary = new Canary();
  await inStubWorld(async (world, artifact) => {
    const watched = new Watched(world, canary);
    const { body } = artifact;
    for (const url of escapes(artifact, canary)) {
      for (const field of ["kernel_image_url", "rootfs_url"]) {
        const before = stateDigest(world);
        const create = { machine_id: "a", ...body, artifact: { ...body.artifact, [field]: url } };
        await watched.ask("post", "/machines", create, ["artifact_refused", "artifact_unavailable"]);
        assert.equal(stateDigest(world), before, url);
      }
    }
    canary.assertUntouched();
    // Exchanged all the time between what is allowed and what is not: it is either the one or refused.
    const [good, flip] = [join(artifact.dir, "good"), join(artifact.dir, "flip")];
    linkSync(join(artifact.dir, "kernel.elf"), good);
    const flipping = setInterval(() => {
      for (const target of [join(canary.path, "secret"), good]) {
        symlinkSync(target, `${flip}.new`);
        renameSync(`${flip}.new`, flip);
      }
    }, 1);
    try {
      for (let round = 0; round < FLIP_ROUNDS; round += 1) {
        const create = {
          machine_id: "a",
          ...body,
          artifact: { ...body.artifact, kernel_image_url: `file://${flip}` },
        };
        const { status } = await watched.ask("post", "/machines", create, [
          201,
          "artifact_refused",
          "artifact_unavailable",
        ]);
        if (status === 201) await watched.ask("delete", "/machines/a");
      }
    } finally {
      clearInterval(flipping);
    }
    canary.assertUntouched();
    await assertNotKept(world, canary);
    writeFileSync(join(artifact.dir, "done"), "");
  });
  canary.assertReadsShow();
});
