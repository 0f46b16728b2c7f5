import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash, randomInt } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { AuditItem } from "../../src/contract/audit.ts";
import type { Machine } from "../../src/contract/machine.ts";
import { RunError, type RunResult, run } from "../../src/system/run.ts";
import {
  compareWithBefore,
  compareWithState,
  type Difference,
  expectedFromFiles,
  explain,
  type Inventory,
  settle,
  takeInventory,
} from "../oracle.ts";
import { makePlayground, PLAYGROUND, type Playground } from "./playground.ts";
import { type Answer, request } from "./request.ts";

const REPOSITORY = realpathSync(join(import.meta.dirname, "../.."));
const POOL_SIZE = 2;
/** 126 slots: many daemons under test can have uid ranges of their own on one machine. */
const SLOTS_PER_WORLD = 128;

export interface WorldOptions {
  /** Settings beside the defaults of the tests. */
  readonly env?: Readonly<Record<string, string>>;
  /** An existing folder as the daemon's root, such as the mount point of another filesystem. */
  readonly rootDir?: string;
  /** The daemon's command line, where it is not the launcher of this checkout. */
  readonly program?: readonly [string, ...string[]];
  /** The network of another world, which ends after this one: two daemons on one host. */
  readonly beside?: World;
}

/** Each daemon on a host needs a pool of its own. */
const POOLS = ["10.200.0.0/24", "10.201.0.0/24"] as const;

/** A daemon under test in a network of its own, and everything that a test does with it. */
export class World implements AsyncDisposable {
  readonly playground: Playground;
  readonly rootDir: string;
  readonly tag: string;
  readonly socket: string;
  readonly key: { readonly file: string; readonly publicLine: string };
  /** What the daemon printed, over all its starts. Beside the root, not in it: the oracle knows every file there. */
  readonly logFile: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #program: readonly [string, ...string[]];
  readonly #undo: AsyncDisposableStack;
  readonly #before: Inventory;
  /** Tags of the daemons beside this one, whose things come and go. */
  readonly #others: readonly string[];
  readonly #uidBase = String(300_000 + randomInt(10_000) * SLOTS_PER_WORLD);
  #daemon: ChildProcess | undefined;
  #failed = false;

  private constructor(parts: {
    playground: Playground;
    rootDir: string;
    key: World["key"];
    logFile: string;
    env: Readonly<Record<string, string>>;
    program: readonly [string, ...string[]];
    undo: AsyncDisposableStack;
    before: Inventory;
    others: readonly string[];
  }) {
    this.playground = parts.playground;
    this.rootDir = parts.rootDir;
    this.tag = tagOf(parts.rootDir);
    this.socket = join(parts.rootDir, "firecracker-host.sock");
    this.key = parts.key;
    this.logFile = parts.logFile;
    this.#env = parts.env;
    this.#program = parts.program;
    this.#undo = parts.undo;
    this.#before = parts.before;
    this.#others = parts.others;
  }

  /** Makes the network, starts the daemon in it and waits until it serves. */
  static async make(options: WorldOptions = {}): Promise<World> {
    await using undo = new AsyncDisposableStack();
    const playground = options.beside?.playground ?? undo.use(await makePlayground());
    const scratch = mkdtempSync("/var/tmp/ch-e2e-");
    undo.defer(() => rmSync(scratch, { recursive: true, force: true }));
    const rootDir = realpathSync(options.rootDir ?? mkdtempSync(join(scratch, "root-")));
    const file = join(scratch, "key");
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f", file]);
    const key = { file, publicLine: readFileSync(`${file}.pub`, "utf8").trim() };
    const before = await takeInventory({ rootDir, tag: tagOf(rootDir), netns: playground.host.netns });
    const world = new World({
      playground,
      rootDir,
      key,
      logFile: join(scratch, "daemon.log"),
      env: {
        FIRECRACKER_HOST_NETWORK_CIDR: POOLS[options.beside === undefined ? 0 : 1],
        ...options.env,
      },
      program: options.program ?? [join(REPOSITORY, "computer-host")],
      undo: undo.move(),
      before,
      others: options.beside === undefined ? [] : [options.beside.tag],
    });
    try {
      await world.startDaemon();
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
    return world;
  }

  get daemonPid(): number {
    const pid = this.#daemon?.pid;
    assert.ok(pid !== undefined, "the daemon does not run");
    return pid;
  }

  get log(): string {
    return readFileSync(this.logFile, "utf8");
  }

  /** Starts the daemon in the host's namespace, as an operator would, and waits for its socket. `env`: for this start. */
  async startDaemon(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const out = openSync(this.logFile, "a");
    const [file, ...args] = this.playground.host.command(this.#program);
    const daemon = spawn(file, args, {
      stdio: ["ignore", out, out],
      env: {
        PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
        ...real("FIRECRACKER_BINARY_PATH"),
        ...real("JAILER_BINARY_PATH"),
        FIRECRACKER_HOST_ROOT_DIR: this.rootDir,
        FIRECRACKER_HOST_POOL_SIZE: String(POOL_SIZE),
        FIRECRACKER_HOST_READY_TIMEOUT: "120s",
        FIRECRACKER_HOST_STOP_TIMEOUT: "60s",
        FIRECRACKER_HOST_UID_BASE: this.#uidBase,
        FIRECRACKER_HOST_DNS: PLAYGROUND.private_resolver,
        ...this.#env,
        ...env,
      },
    });
    closeSync(out);
    this.#daemon = daemon;
    for (let attempt = 0; attempt < 300; attempt += 1) {
      if (daemon.exitCode !== null || daemon.signalCode !== null)
        throw new Error(`the daemon ended with ${daemon.exitCode ?? daemon.signalCode}:\n${this.log}`);
      const health = await this.get("/health").catch(() => undefined);
      if (health?.status === 200) return;
      await sleep(100);
    }
    throw new Error(`the daemon does not serve:\n${this.log}`);
  }

  /** Ends the daemon by `signal` and waits for its end. Returns its exit code, null after a signal. */
  async endDaemon(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<number | null> {
    const daemon = this.#daemon;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return null;
    const ended = once(daemon, "exit", { signal: AbortSignal.timeout(60_000) });
    daemon.kill(signal);
    await ended;
    this.#daemon = undefined;
    return daemon.exitCode;
  }

  /** True when the daemon died, or does within `limitMs`. */
  async waitDaemonDead(limitMs: number): Promise<boolean> {
    const daemon = this.#daemon;
    if (daemon === undefined) return true;
    const isDead = (): boolean => daemon.exitCode !== null || daemon.signalCode !== null;
    for (const end = performance.now() + limitMs; !isDead() && performance.now() < end; ) await sleep(20);
    if (isDead()) this.#daemon = undefined;
    return isDead();
  }

  get(path: string): Promise<Answer> {
    return request(this.socket, "GET", path);
  }
  post(path: string, body?: object, signal?: AbortSignal): Promise<Answer> {
    return request(this.socket, "POST", path, body, signal);
  }
  delete(path: string): Promise<Answer> {
    return request(this.socket, "DELETE", path);
  }

  /** Creates a machine that this world's key may log in to, and returns it. */
  async create(machine_id: string, body: Record<string, unknown> = {}): Promise<Machine> {
    const { guest_config, ...rest } = body;
    const answer = await this.post("/machines", {
      machine_id,
      memory_mib: 192,
      guest_config: { authorized_keys: [this.key.publicLine], ...(guest_config as object | undefined) },
      ...rest,
    });
    assert.equal(answer.status, 201, `create ${machine_id}: ${JSON.stringify(answer.body)}`);
    return answer.body.machine as Machine;
  }

  /** Runs a command in a guest over real SSH, from the host's namespace, accepting only the host key that it was given. */
  async ssh(
    machine: Machine,
    command: string,
    options: { timeoutMs?: number; okCodes?: readonly number[] } = {},
  ): Promise<RunResult> {
    const { runtime_host, guest_ssh_host_public_key } = machine;
    assert.ok(runtime_host !== undefined && guest_ssh_host_public_key !== undefined);
    const known = `KnownHostsCommand=/usr/bin/echo ${runtime_host} ${guest_ssh_host_public_key}`;
    const argv = this.playground.host.command([
      "ssh",
      "-i",
      this.key.file,
      "-o",
      "BatchMode=yes",
      "-o",
      "StrictHostKeyChecking=yes",
      "-o",
      "UserKnownHostsFile=/dev/null",
      "-o",
      known,
      "-o",
      "ConnectTimeout=20",
      "-o",
      "LogLevel=ERROR",
      `${machine.guest_user}@${runtime_host}`,
      command,
    ]);
    return await run(argv, { timeoutMs: 60_000, ...options });
  }

  /** What a command printed in a guest, trimmed. */
  async print(machine: Machine, command: string): Promise<string> {
    return (await this.ssh(machine, command)).stdout.trim();
  }

  /** True when the command ends with 0 in the guest, false when it ends with another code. */
  async succeeds(machine: Machine, command: string): Promise<boolean> {
    try {
      await this.ssh(machine, command);
      return true;
    } catch (error) {
      if (error instanceof RunError && error.code !== null && error.code !== 255) return false;
      throw error;
    }
  }

  /** The oracle while the daemon runs: the host holds exactly what the state says. */
  async assertMatchesState(): Promise<void> {
    const scope = { rootDir: this.rootDir, tag: this.tag, netns: this.playground.host.netns };
    const differences = await settle(async () =>
      compareWithState(
        await takeInventory(scope),
        await expectedFromFiles(scope, { daemonRuns: true, poolSize: POOL_SIZE }),
      ),
    );
    assert.equal(explain(differences), "");
  }

  /** The daemon's own audit agrees that everything is as it should be. */
  async assertAuditClean(): Promise<void> {
    const { status, body } = await this.get("/audit");
    assert.equal(status, 200, JSON.stringify(body));
    const wrong = (body.items as AuditItem[]).filter((item) => item.status !== "ok");
    assert.deepEqual(wrong, []);
  }

  /** The same, as soon as what the daemon mends behind its start is mended: for at most half a minute. */
  async waitAuditClean(): Promise<void> {
    for (const end = performance.now() + 30_000; performance.now() < end; ) {
      const { body } = await this.get("/audit");
      if ((body.items as AuditItem[]).every((item) => item.status === "ok")) return;
      await sleep(200);
    }
    await this.assertAuditClean();
  }

  /** Deletes every machine and snapshot and asks the oracle; then ends the daemon and asks it again. */
  async assertLeavesNothing(): Promise<void> {
    const { body } = await this.get("/machines");
    const snapshots = new Set<string>();
    for (const { id } of body.machines as { id: string }[]) {
      for (const snapshot of (await this.get(`/machines/${id}/snapshots`)).body.snapshots)
        snapshots.add(snapshot.id);
      assert.equal((await this.delete(`/machines/${id}`)).status, 204);
    }
    for (const id of snapshots) assert.equal((await this.delete(`/snapshots/${id}`)).status, 204);
    await this.assertMatchesState();
    assert.equal(await this.endDaemon(), 0, this.log);
    const scope = { rootDir: this.rootDir, tag: this.tag, netns: this.playground.host.netns };
    const differences = await settle(async () =>
      compareWithBefore(this.#before, await takeInventory(scope)).filter(
        (difference) =>
          !isKept(difference, this.rootDir) && !this.#others.some((tag) => difference.what.includes(tag)),
      ),
    );
    assert.equal(explain(differences), "");
  }

  /** A failing test says so, so that KEEP=1 keeps its wreck and the guests' last words are shown. */
  fail(): void {
    this.#failed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failed && process.env["KEEP"] === "1") {
      process.stderr.write(
        `kept: ${this.rootDir}, namespace ${this.playground.host.netns}, daemon ${this.#daemon?.pid ?? "ended"}\n`,
      );
      this.#daemon?.unref();
      return;
    }
    await this.endDaemon("SIGKILL");
    await this.#removeWreck();
    await this.#undo.disposeAsync();
  }

  /** What a test that failed half-way left: its VMMs, namespaces, cgroups and claim. */
  async #removeWreck(): Promise<void> {
    const { removeAllOf } = await import("./wreck.ts");
    await removeAllOf(this.rootDir, this.tag);
  }
}

function tagOf(rootDir: string): string {
  return createHash("sha256").update(rootDir).digest("hex").slice(0, 6);
}

function real(name: string): Record<string, string> {
  const value = process.env[name];
  return value === undefined ? {} : { [name]: value };
}

/** What a daemon that ended is meant to leave: its root folder, and forwarding, which others may have come to rely on. */
function isKept({ resource, what }: Difference, rootDir: string): boolean {
  return (
    (resource === "file" && what.startsWith(rootDir)) ||
    (resource === "sysctl" && what.includes("ip_forward"))
  );
}

/** Runs a test's body in a world, and ends it with the oracle. */
export async function inWorld(
  body: (world: World) => Promise<void>,
  options: WorldOptions = {},
): Promise<void> {
  await using world = await World.make(options);
  try {
    await body(world);
    await world.assertLeavesNothing();
  } catch (error) {
    world.fail();
    process.stderr.write(`${await lastWords(world)}\n`);
    throw error;
  }
}

/** The end of every guest's console and of the daemon's log: what a failing test needs to be understood. */
async function lastWords(world: World): Promise<string> {
  const { stdout } = await run(
    [
      "sh",
      "-c",
      'for file in "$1"/machines/*/console.log "$1"/machines/*/vmm.log; do [ -e "$file" ] && { echo "== $file"; tail -c 2000 "$file"; }; done; true',
      "sh",
      world.rootDir,
    ],
    { okCodes: [0, 1] },
  );
  return `${stdout}\n== daemon\n${world.log.slice(-4000)}`;
}
