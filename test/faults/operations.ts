import assert from "node:assert/strict";
import type { Machine } from "../../src/contract/machine.ts";
import type { Answer } from "../support/request.ts";
import type { World } from "../support/world.ts";

/** An operation, and what may be found after a fault in it: done or undone, as text. */
export interface Scenario {
  /** Brings the host to where the operation begins, whatever an earlier kill left. */
  readonly before: (world: World) => Promise<unknown>;
  readonly run: (world: World) => Promise<Answer>;
  readonly done: string;
  /** Undefined of one that only goes forward once it has begun; it may still not have begun. */
  readonly undone: string;
}

const started = { ready: "started" } as const;

export async function clear(world: World): Promise<void> {
  for (const { id } of (await world.get("/machines")).body.machines as Machine[]) {
    if (id === "one") continue;
    assert.equal((await world.delete(`/machines/${id}`)).status, 204);
  }
  assert.equal((await world.delete("/snapshots/new")).status, 204);
}

/** Everything that clients can see of machines and snapshots, as one line. */
export async function seen(world: World): Promise<string> {
  const machines = (await world.get("/machines")).body.machines as Machine[];
  const snapshots = (await world.get("/machines/one/snapshots")).body;
  return [
    ...machines.map(({ id, phase, paused }) => `${id} ${phase}${paused === true ? " paused" : ""}`).sort(),
    ...(snapshots.snapshots ?? []).map(({ id }: { id: string }) => `snapshot ${id}`).sort(),
  ].join(", ");
}

async function running(world: World): Promise<void> {
  await clear(world);
  await world.post("/machines/one/start");
  assert.equal((await world.post("/machines/one/resume")).status, 200);
}

async function stopped(world: World): Promise<void> {
  await clear(world);
  assert.equal((await world.post("/machines/one/stop")).status, 204);
}

export function scenarios(body: object): Readonly<Record<string, Scenario>> {
  return {
    create: {
      before: running,
      run: (world) => world.post("/machines", { machine_id: "new", ...body }),
      done: "new running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    stop: {
      before: running,
      run: (world) => world.post("/machines/one/stop"),
      done: "one stopped, snapshot s",
      undone: "one running, snapshot s",
    },
    start: {
      before: stopped,
      run: (world) => world.post("/machines/one/start"),
      done: "one running, snapshot s",
      undone: "one stopped, snapshot s",
    },
    pause: {
      before: running,
      run: (world) => world.post("/machines/one/pause"),
      done: "one running paused, snapshot s",
      undone: "one running, snapshot s",
    },
    delete: {
      before: async (world) => {
        await running(world);
        await world.post("/machines", { machine_id: "new", ...body });
      },
      run: (world) => world.delete("/machines/new"),
      done: "one running, snapshot s",
      undone: "new running, one running, snapshot s",
    },
    "disk snapshot": {
      before: running,
      run: (world) => world.post("/machines/one/snapshots", { snapshot_id: "new" }),
      done: "one running, snapshot new, snapshot s",
      undone: "one running, snapshot s",
    },
    "memory snapshot": {
      before: running,
      run: (world) => world.post("/machines/one/snapshots", { snapshot_id: "new", memory: true }),
      done: "one running, snapshot new, snapshot s",
      undone: "one running, snapshot s",
    },
    "delete of a snapshot": {
      before: async (world) => {
        await running(world);
        await world.post("/machines/one/snapshots", { snapshot_id: "new" });
      },
      run: (world) => world.delete("/snapshots/new"),
      done: "one running, snapshot s",
      undone: "one running, snapshot new, snapshot s",
    },
    "live restore": {
      before: running,
      run: (world) => world.post("/snapshots/s/restore", { machine_id: "new", ...started }),
      done: "new running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    "restore from disk": {
      before: running,
      run: (world) => world.post("/snapshots/s/restore", { machine_id: "new", memory: false, ...started }),
      done: "new running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    fork: {
      before: running,
      run: (world) => world.post("/machines/one/fork", { count: 2, id_prefix: "new-", ...started }),
      done: "new-1 running, new-2 running, one running, snapshot s",
      undone: "one running, snapshot s",
    },
    resize: {
      before: stopped,
      run: (world) => world.post("/machines/one/resize", { memory_mib: 64 + Math.floor(Math.random() * 8) }),
      done: "one stopped, snapshot s",
      undone: "one stopped, snapshot s",
    },
  };
}
