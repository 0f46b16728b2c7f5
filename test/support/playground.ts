import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type RunOptions, type RunResult, run } from "../../src/system/run.ts";

/** Addresses of the playground, the same in each: nothing of it is connected to the machine that it stands on. */
export const PLAYGROUND = {
  egress_device: "egress0",
  /** The host's own address on its way out. */
  host_address: "198.51.100.2",
  /** The router beyond, with the servers of `outside.ts`; as public as TEST-NET-2 looks. */
  outside_address: "198.51.100.1",
  /** A public address further away. */
  public_address: "203.0.113.7",
  /** A resolver in a private range: the way to port 53 must be open to it and to nothing else there. */
  private_resolver: "10.99.0.53",
  /** Addresses of denied ranges that answer, so that a probe of one fails for no other reason than our rules. */
  private_addresses: ["10.99.0.1", "172.20.0.1", "192.168.77.1", "100.64.1.1", "169.254.169.254"],
} as const;

/** A network namespace in which commands run. Mounts are those of the machine: cgroups stay reachable. */
export interface Place {
  readonly netns: string;
  readonly netns_path: string;
  /** The argv that runs `argv` in this place. */
  command(argv: readonly [string, ...string[]]): [string, ...string[]];
  /** Runs a command to its end. */
  run(argv: readonly [string, ...string[]], options?: RunOptions): Promise<RunResult>;
}

export interface Playground extends AsyncDisposable {
  /** Stands for the host: the daemon under test runs here. */
  readonly host: Place;
  /** Stands for the rest of the world. */
  readonly outside: Place;
}

/** A place in an existing namespace, such as that of a slot. */
export function placeIn(netns: string): Place {
  const path = `/run/netns/${netns}`;
  // Not `ip netns exec`: it mounts a new /sys, and the cgroups below the old one are gone for the command.
  const command = (argv: readonly [string, ...string[]]): [string, ...string[]] => [
    "nsenter",
    `--net=${path}`,
    "--",
    ...argv,
  ];
  return { netns, netns_path: path, command, run: (argv, options) => run(command(argv), options) };
}

/**
 * Makes a namespace that plays the host and one that plays the outside, with servers in it (outside.ts), joined by
 * one veth pair and by nothing to the real network. Needs root. Names are random: many stand side by side.
 * Disposing ends the servers and removes both; a making that fails halfway has removed its half before it throws.
 */
export async function makePlayground(): Promise<Playground> {
  const id = randomBytes(4).toString("hex");
  const host = placeIn(`chplay-${id}-host`);
  const outside = placeIn(`chplay-${id}-out`);
  await using undo = new AsyncDisposableStack();
  for (const { netns } of [host, outside]) {
    await run(["ip", "netns", "add", netns]);
    undo.defer(async () => {
      await run(["ip", "netns", "del", netns]);
    });
  }
  const {
    egress_device,
    host_address,
    outside_address,
    public_address,
    private_resolver,
    private_addresses,
  } = PLAYGROUND;
  await host.run(["ip", "-batch", "-"], {
    input: `link set lo up
link add ${egress_device} type veth peer name world0 netns ${outside.netns}
addr add ${host_address}/24 dev ${egress_device}
link set ${egress_device} up
route add default via ${outside_address} dev ${egress_device}
`,
  });
  const onLoopback = [public_address, private_resolver, ...private_addresses];
  await outside.run(["ip", "-batch", "-"], {
    input: `link set lo up
addr add ${outside_address}/24 dev world0
link set world0 up
${onLoopback.map((address) => `addr add ${address}/32 dev lo`).join("\n")}
route add default via ${host_address} dev world0
`,
  });
  const servers = await startServers(outside);
  undo.defer(() => endProcess(servers));
  const made = undo.move();
  return { host, outside, [Symbol.asyncDispose]: () => made.disposeAsync() };
}

async function startServers(outside: Place): Promise<ChildProcess> {
  const script = fileURLToPath(new URL("outside.ts", import.meta.url));
  const [file, ...args] = outside.command([process.execPath, script]);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const [line] = (await Promise.race([
    once(lines, "line", { signal: AbortSignal.timeout(20_000) }),
    once(child, "exit").then(() => ["ended"]),
  ]).catch(async (error: unknown) => {
    await endProcess(child);
    throw error;
  })) as [string];
  if (line !== "ready") throw new Error(`the outside's servers did not start: ${line}`);
  return child;
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}
