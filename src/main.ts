import { mkdirSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import type { pino } from "pino";
import { listenOnTcp } from "./api/listen.ts";
import { makeServer } from "./api/server.ts";
import { SocketPlace } from "./api/socket-place.ts";
import { checkHost } from "./check.ts";
import { messageOf } from "./contract/errors.ts";
import { createGuests } from "./guest/guests.ts";
import { Host } from "./host/host.ts";
import { inUse, livingIn } from "./host/in-use.ts";
import { makeLog } from "./logging.ts";
import { createNetwork } from "./network/network.ts";
import { readSettings, type Settings, VARIABLES } from "./settings.ts";
import { openState } from "./state/store.ts";
import { createStorage } from "./storage/storage.ts";
import { systemClock } from "./system/clock.ts";
import { lockFile } from "./system/lock.ts";
import { tagOf } from "./tag.ts";
import { VERSION } from "./version.ts";
import { createVmms } from "./vmm/vmms.ts";

export const SOCKET_NAME = "firecracker-host.sock";
const here = dirname(fileURLToPath(import.meta.url));

/** The pair for hosts that cannot run Firecracker: programs beside the daemon, of which its rooms know nothing. */
const STAND_INS = {
  firecrackerPath: join(here, "standin/bin/firecracker-qemu"),
  jailerPath: join(here, "standin/bin/jailer-qemu"),
  label: "firecracker-qemu (stand-in)",
  reason:
    "no Firecracker is known to boot Linux on this host: guests run in QEMU, more slowly and with less isolation",
} as const;

/** Where an installed pair is looked for. */
const SEARCH_PATH = [
  "/usr/local/bin",
  ...(process.env["PATH"] ?? "").split(":").filter((folder) => folder.startsWith("/")),
];

function groupId(name: string | undefined): number | undefined {
  if (name === undefined) return undefined;
  const line = readFileSync("/etc/group", "utf8")
    .split("\n")
    .find((entry) => entry.startsWith(`${name}:`));
  const gid = Number(line?.split(":")[2]);
  if (line === undefined || !Number.isInteger(gid))
    throw new Error(`${VARIABLES.socketGroup.name} names ${name}, and there is no such group`);
  return gid;
}

/** A word about an API that more than this host can reach. */
function exposure({ httpAddress }: Settings): string[] {
  if (httpAddress === undefined || isLoopback(httpAddress.host)) return [];
  return [
    `${VARIABLES.httpAddress.name} serves the API on ${httpAddress.host}, without authentication: whoever reaches that address is root here`,
  ];
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

/** Brings the rooms up in the order in which they need each other, and the API last. Returns what takes all down again. */
async function start(
  settings: Settings,
  warnings: readonly string[],
  log: pino.Logger,
): Promise<() => Promise<void>> {
  await using opened = new AsyncDisposableStack();
  // The socket lies in the root, so its group must get through; everything else in it is for root alone.
  const umask = process.umask(0o022);
  mkdirSync(settings.rootDir, { recursive: true, mode: 0o711 });
  process.umask(umask);
  const rootDir = realpathSync(settings.rootDir);
  const gid = groupId(settings.socketGroup);
  const lock = await lockFile(join(rootDir, "daemon.lock"));
  if (lock === undefined) throw new Error(`another daemon runs on ${rootDir}`);
  opened.defer(() => lock.close());
  const tag = tagOf(rootDir);

  const state = await openState({ dir: join(rootDir, "state"), log });
  opened.defer(() => state.close());
  const storage = createStorage({ ...settings, rootDir, cloneMode: settings.diskCloneMode, log });
  await storage.open();
  const vmms = createVmms({
    rootDir,
    tag,
    firecrackerPath: settings.firecrackerPath,
    jailerPath: settings.jailerPath,
    fallback: STAND_INS,
    searchPath: SEARCH_PATH,
    log,
  });
  await vmms.open();
  const guests = createGuests({ rootDir, loginCaPublicKey: settings.loginCaPublicKey, log });
  await guests.open();
  const network = createNetwork({
    tag,
    rootDir,
    cidr: settings.networkCidr,
    cidrIsDefault: process.env[VARIABLES.networkCidr.name] === undefined,
    egressInterface: settings.egressInterface,
    egressAllow: settings.egressAllow,
    dns: settings.dns,
    uidBase: settings.uidBase,
    poolSize: settings.poolSize,
    log,
  });
  await network.open(inUse(state).slots, livingIn(state));
  opened.defer(() => network.close());

  const host = new Host(
    { state, network, storage, guests, vmms, clock: systemClock, log },
    { ...settings, rootDir, tag, startWarnings: [...warnings, ...exposure(settings)] },
  );
  const bySocket = await makeServer(host, log);
  opened.defer(() => bySocket.close());
  const { httpAddress } = settings;
  const byTcp = httpAddress === undefined ? undefined : await makeServer(host, log);
  opened.defer(() => byTcp?.close());
  await host.open();
  // First to close: it refuses new work, and waits for what is under way.
  opened.defer(() => host.close());
  const onError = (error: Error): void =>
    log.error({ err: error }, "a client's connection could not be taken");
  const place = new SocketPlace(bySocket.server, join(rootDir, SOCKET_NAME), gid, onError);
  await place.listen();
  opened.defer(() => place.close());
  host.watch(place);
  if (byTcp !== undefined && httpAddress !== undefined)
    await listenOnTcp(byTcp.server, httpAddress.host, httpAddress.port, onError);
  log.info(
    { version: VERSION, root_dir: rootDir, tag, socket: join(rootDir, SOCKET_NAME) },
    "the daemon serves",
  );
  const rest = opened.move();
  return async () => {
    await rest.disposeAsync();
  };
}

async function serve(): Promise<void> {
  const { settings, warnings } = readSettings(process.env);
  if (process.getuid?.() !== 0) throw new Error("root is needed to run guests: use sudo");
  const log = makeLog(settings.logLevel);
  for (const text of warnings) log.warn({}, text);
  const { promise: asked, resolve } = Promise.withResolvers<string>();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, resolve);
  process.on("unhandledRejection", (reason) =>
    log.error({ err: reason }, "a promise was rejected and nobody listened"),
  );
  const stop = await start(settings, warnings, log);
  const signal = await asked;
  log.info({ signal }, "the daemon ends; the guests run on");
  await stop();
}

const program = new Command()
  .name("computer-host")
  .description("Owns the Firecracker microVMs of this host and serves them over a Unix socket.")
  .version(VERSION)
  .option("--check", "say whether this host can run machines, and change nothing")
  .addHelpText(
    "after",
    `\nEnvironment:\n${Object.values(VARIABLES)
      .map(
        ({ name, fallback, meaning }) =>
          `  ${name}\n      ${meaning}${fallback === "" ? "" : ` (${fallback})`}`,
      )
      .join("\n")}`,
  )
  .action(async ({ check }: { check?: boolean }) => {
    try {
      if (check === true) {
        const sources = { searchPath: SEARCH_PATH, fallback: STAND_INS };
        process.exitCode = await checkHost(readSettings(process.env), sources);
      } else await serve();
    } catch (error) {
      process.stderr.write(`computer-host: ${messageOf(error)}\n`);
      process.exitCode = 1;
    }
  });
await program.parseAsync();
