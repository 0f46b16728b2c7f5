/**
 * The part store as a program of its own, so that it can stand in another network namespace. It prints its URL; then each
 * line that it reads, `{"request": "PUT /parts/x/1", "trouble": {…}}`, makes a request go wrong and is answered by "ok".
 * It ends with its standard input.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { startPartStore, type Trouble } from "../unit/storage/part-store.ts";
import type { Place } from "./playground.ts";

export interface FarStore extends AsyncDisposable {
  readonly url: string;
  /** Makes the next requests of `METHOD /path` go wrong. */
  trouble(request: string, trouble: Trouble): Promise<void>;
}

/** Starts one on the loopback of a namespace. */
export async function startFarStore(place: Place): Promise<FarStore> {
  const [file, ...args] = place.command([process.execPath, fileURLToPath(import.meta.url), "serve"]);
  const child: ChildProcess = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  if (child.stdout === null) throw new Error("the store has no output");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error("the part store ended");
    return value;
  };
  return {
    url: await line(),
    trouble: async (request, trouble) => {
      child.stdin?.write(`${JSON.stringify({ request, trouble })}\n`);
      await line();
    },
    [Symbol.asyncDispose]: async () => {
      const ended = once(child, "exit");
      child.stdin?.end();
      await ended;
    },
  };
}

async function serve(): Promise<void> {
  const atTheEnd: (() => unknown)[] = [];
  const store = await startPartStore({ after: (work) => atTheEnd.push(work) });
  process.stdout.write(`${store.url}\n`);
  for await (const line of createInterface({ input: process.stdin })) {
    const { request, trouble }: { request: string; trouble: Trouble } = JSON.parse(line);
    store.trouble(request, trouble);
    process.stdout.write("ok\n");
  }
  for (const work of atTheEnd) await work();
}

if (process.argv[2] === "serve") await serve();
