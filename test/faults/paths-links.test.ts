import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { inStubWorld } from "../support/stub-world.ts";
import { vmmOf } from "../support/tiny-machine.ts";
import type { World } from "../support/world.ts";
import { Canary } from "./paths-canary.ts";
import { assertNotKept, bytesOf, Watched } from "./paths-watched.ts";

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
