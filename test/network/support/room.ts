import { spawn } from "node:child_process";
import { createHash, randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Warning } from "../../../src/contract/health.ts";
import type { NetworkOptions } from "../../../src/network/network.ts";
import { planSlots } from "../../../src/network/plan.ts";
import { unmakeSlots } from "../../../src/network/making.ts";
import { findSlots } from "../../../src/network/sweep.ts";
import type { HostItem, Mended } from "../../../src/model/inventory.ts";
import type { HeldSlot, Slot } from "../../../src/network/types.ts";
import { PLAYGROUND, type Place } from "../../support/playground.ts";

/** A network room that runs as a process of its own in some place. */
export interface Room extends AsyncDisposable {
  readonly tag: string;
  open(inUse?: readonly number[], living?: readonly (readonly [number, number])[]): Promise<void>;
  inventory(held: readonly HeldSlot[], quiet?: number, look?: "some" | "all"): Promise<HostItem[]>;
  mend(items: readonly HostItem[], held: readonly HeldSlot[], quiet?: number): Promise<Mended[]>;
  acquire(abortAfterMs?: number): Promise<Slot>;
  openEgress(slot: Slot): Promise<void>;
  closeEgress(slot: Slot): Promise<void>;
  release(slot: Slot): Promise<void>;
  warnings(): Promise<Warning[]>;
  resolvers(): Promise<string[]>;
  logged(): Promise<string[]>;
  close(): Promise<void>;
  /** SIGKILL: what the room was doing stays as it is. */
  kill(): Promise<void>;
}

/** What a room throws, as it came through the pipe. */
export class RoomError extends Error {
  readonly code: string | undefined;
  constructor(message: string, code: string | undefined) {
    super(message);
    this.code = code;
  }
}

/** A root folder with its tag, removed with all that rooms of it left on the host. */
export interface Root extends AsyncDisposable {
  readonly rootDir: string;
  readonly tag: string;
  readonly claimsDir: string;
  /** Starts a room of this root in `place`; more than one at a time would be two daemons on one root. */
  start(place: Place, options?: Partial<NetworkOptions>): Room;
}

const DRIVER = fileURLToPath(new URL("room-driver.ts", import.meta.url));

/** Makes a root whose rooms see only the claims in `claimsDir` (default: their own). */
export async function makeRoot(claimsDir?: string): Promise<Root> {
  const rootDir = await mkdtemp(join(tmpdir(), "chnet-"));
  const tag = createHash("sha256").update(rootDir).digest("hex").slice(0, 6);
  const claims = claimsDir ?? join(rootDir, "claims");
  const uidBase = randomInt(1_000_000, 4_000_000_000);
  let lastPlace: Place | undefined;
  return {
    rootDir,
    tag,
    claimsDir: claims,
    start: (place, options = {}) => {
      lastPlace = place;
      return startRoom(place, {
        tag,
        rootDir,
        cidr: "10.200.0.0/16",
        egressAllow: [],
        dns: [PLAYGROUND.private_resolver],
        uidBase,
        poolSize: 2,
        claimsDir: claims,
        warningsMaxAgeMs: 0,
        ...options,
      });
    },
    [Symbol.asyncDispose]: async () => {
      await rm(rootDir, { recursive: true, force: true });
      // The host's ends vanish with the place; names of namespaces are the machine's.
      if (lastPlace !== undefined)
        await unmakeSlots(findSlots(planSlots({ tag, cidr: "10.200.0.0/16", uidBase })));
    },
  };
}

function startRoom(place: Place, options: Omit<NetworkOptions, "log">): Room {
  const [file, ...args] = place.command([process.execPath, DRIVER, JSON.stringify(options)]);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  const pending = new Map<number, PromiseWithResolvers<unknown>>();
  let lastId = 0;
  createInterface({ input: child.stdout }).on("line", (line) => {
    const { id, value, error } = JSON.parse(line) as {
      id: number;
      value?: unknown;
      error?: { message: string; code?: string };
    };
    const call = pending.get(id);
    pending.delete(id);
    if (error === undefined) call?.resolve(value);
    else call?.reject(new RoomError(error.message, error.code));
  });
  child.on("exit", () => {
    for (const call of pending.values()) call.reject(new RoomError("the room's process ended", undefined));
  });
  child.stdin.on("error", () => {});
  const call = async (name: string, ...values: unknown[]): Promise<unknown> => {
    lastId += 1;
    const waiting = Promise.withResolvers<unknown>();
    pending.set(lastId, waiting);
    child.stdin.write(`${JSON.stringify({ id: lastId, call: name, args: values })}\n`);
    return waiting.promise;
  };
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  return {
    tag: options.tag,
    open: async (inUse = [], living = []) => void (await call("open", inUse, living)),
    inventory: async (held, quiet = 0, look = "all") =>
      (await call("inventory", held, quiet, look)) as HostItem[],
    mend: async (items, held, quiet = 0) => (await call("mend", items, held, quiet)) as Mended[],
    acquire: async (abortAfterMs) => (await call("acquire", abortAfterMs)) as Slot,
    openEgress: async (slot) => void (await call("openEgress", slot)),
    closeEgress: async (slot) => void (await call("closeEgress", slot)),
    release: async (slot) => void (await call("release", slot)),
    warnings: async () => (await call("warnings")) as Warning[],
    resolvers: async () => (await call("resolvers")) as string[],
    logged: async () => (await call("logged")) as string[],
    close: async () => void (await call("close")),
    kill,
    [Symbol.asyncDispose]: kill,
  };
}
