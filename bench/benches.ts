import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { request } from "../test/support/request.ts";
import type { World } from "../test/support/world.ts";
import { type Comparison, interleave, time } from "./measure.ts";
import { populate, type Stage, timeToSocket, untilAnswers } from "./stage.ts";

export interface Size {
  readonly samples: number;
  /** How many machines "many" are. */
  readonly many: number;
}

type Bench = (stage: Stage, size: Size) => Promise<Comparison[]>;

const NODE = process.execPath;
const FEW = 10;
const here = (file: string): string => join(import.meta.dirname, file);

/** Sides that are not a daemon leave their sockets and files in a folder that goes with the bench. */
async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync("/var/tmp/ch-bench-");
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The oracle's word that the host is as the state says: without it a figure means nothing. */
async function judged(world: World, comparisons: Comparison[]): Promise<Comparison[]> {
  await world.assertMatchesState();
  return comparisons;
}

/** A list of many machines and a get of one, against answers of the same bytes that are ready-made. */
const answers: Bench = (stage, { samples, many }) =>
  inFolder(async (folder) => {
    await using world = await stage.world();
    await populate(stage, world, "m", many);
    const comparisons: Comparison[] = [];
    for (const [name, path] of [
      [`list of ${many}`, "/machines"],
      [`get of one among ${many}`, "/machines/m0"],
    ] as const) {
      const file = join(folder, "body");
      writeFileSync(file, JSON.stringify((await world.get(path)).body));
      const socket = join(folder, `${comparisons.length}.sock`);
      const server = spawn(NODE, [here("static-server.ts"), socket, file], { stdio: "ignore" });
      try {
        await untilAnswers(socket, "/", server);
        const times = await interleave(
          samples,
          () => time(() => world.get(path)),
          () => time(() => request(socket, "GET", "/")),
        );
        const against = "a ready-made answer of the same bytes from fastify";
        comparisons.push({ name, measured: `GET ${path}`, against, vmm: stage.vmm, goal: 1.5, ...times });
      } finally {
        const ended = once(server, "exit");
        server.kill("SIGKILL");
        await ended;
      }
    }
    return await judged(world, comparisons);
  });

/** A create with many machines present, against one with few: two daemons on one host, in turn. */
const crowd: Bench = async (stage, { samples, many }) => {
  await using full = await stage.world();
  await using empty = await stage.world(full);
  await populate(stage, full, "m", many);
  await populate(stage, empty, "m", FEW);
  const create = async (world: World): Promise<number> => {
    const taken = await time(() => world.create("new", stage.artifact.body));
    if ((await world.delete("/machines/new")).status !== 204) throw new Error("it could not be deleted");
    await world.assertMatchesState();
    return taken;
  };
  const times = await interleave(
    samples,
    () => create(full),
    () => create(empty),
  );
  return await judged(full, [
    {
      name: `create with ${many} machines present`,
      measured: `POST /machines with ${many} present`,
      against: `the same with ${FEW}`,
      vmm: stage.vmm,
      goal: 1.1,
      ...times,
    },
  ]);
};

/** A delete, request to answer, against ending a process and removing as many files. */
const remove: Bench = (stage, { samples }) =>
  inFolder(async (folder) => {
    await using world = await stage.world();
    const kept = join(folder, "machine");
    const times = await interleave(
      samples,
      async () => {
        await world.create("one", stage.artifact.body);
        await world.assertMatchesState();
        const taken = await time(() => world.delete("/machines/one"));
        await world.assertMatchesState();
        return taken;
      },
      async () => {
        await mkdir(kept);
        for (const name of ["disk", "seed", "console", "log", "metrics"])
          writeFileSync(join(kept, name), Buffer.alloc(name === "disk" ? 16 * 1024 * 1024 : 4096));
        const child = spawn("sleep", ["600"], { stdio: "ignore" });
        await once(child, "spawn");
        return await time(async () => {
          const ended = once(child, "exit");
          child.kill("SIGKILL");
          await ended;
          await rm(kept, { recursive: true });
        });
      },
    );
    return await judged(world, [
      {
        name: "delete",
        measured: "DELETE of a running machine, to its answer",
        against: "a kill, the process's end and the removal of as many files",
        vmm: stage.vmm,
        goal: 1.2,
        ...times,
      },
    ]);
  });

/** A start on an empty root, and one after a SIGKILL with many machines, each against what Node alone takes. */
const starts: Bench = (stage, { samples, many }) =>
  inFolder(async (folder) => {
    await using world = await stage.world();
    const socket = join(folder, "floor.sock");
    const floor = (...args: string[]) => timeToSocket([NODE, here("floor.ts"), socket, ...args], socket);
    const start = async (): Promise<number> => {
      await world.endDaemon("SIGKILL");
      return await time(() => world.startDaemon());
    };
    const clean = async (...args: string[]): Promise<number> => {
      rmSync(socket, { force: true });
      return await floor(...args);
    };
    const cold = await interleave(samples, start, () => clean());
    await populate(stage, world, "m", many);
    const pids = async (): Promise<string> =>
      JSON.stringify(
        (await world.get("/machines")).body.machines.map((each: { id: string; vmm?: { pid: number } }) => [
          each.id,
          each.vmm?.pid,
        ]),
      );
    const before = await pids();
    const state = join(world.rootDir, "state");
    const recovery = await interleave(Math.max(3, Math.ceil(samples / 3)), start, () => clean(state));
    if ((await pids()) !== before) throw new Error("a restart disturbed guests");
    return await judged(world, [
      {
        name: "cold start",
        measured: "the daemon's start to its first answer, with an empty root",
        against: "a Node program that answers on a socket",
        vmm: "none",
        goal: 2,
        ...cold,
      },
      {
        name: `recovery of ${many}`,
        measured: `start to first answer after a SIGKILL with ${many} machines`,
        against: "a Node program that reads the state and /proc and answers",
        vmm: stage.vmm,
        goal: 2,
        ...recovery,
      },
    ]);
  });

/** The benches by name, in the order they run. */
export const BENCHES: Readonly<Record<string, Bench>> = { answers, crowd, delete: remove, starts };
