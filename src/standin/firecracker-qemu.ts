/**
 * A stand-in for Firecracker, for hosts where Firecracker can't run: its command line, its API and its ways to
 * end, around a guest that runs in QEMU. A client can't tell the two apart but by the version.
 */
import { readFileSync } from "node:fs";

import type { Accelerator } from "./shared/accelerator.ts";
import { ArgumentError, type Arguments, formatHelp, parseArguments } from "./shared/arguments.ts";
import { instanceIdFault } from "./shared/instance-id.ts";
import { errnoOf, osErrorDebug, osErrorText } from "./shared/os-error.ts";
import { VERSION } from "./shared/version.ts";
import { ApiServer } from "./vmm/api-server.ts";
import { DEFAULT_INSTANCE_ID, DEFAULT_PAYLOAD_BYTES, FIRECRACKER_ARGUMENTS } from "./vmm/arguments.ts";
import { parseLogLevel } from "./vmm/bodies.ts";
import { bootFromConfig } from "./vmm/config-file.ts";
import { Controller, type Finish } from "./vmm/controller.ts";
import { Fault } from "./vmm/fault.ts";
import { Logger } from "./vmm/logger.ts";
import { readStateFile, SNAPSHOT_VERSION } from "./vmm/state-file.ts";

/** Firecracker's exit codes. */
const EXIT = { ok: 0, generic: 1, badConfiguration: 152, badArguments: 153 } as const;
const SIGNAL_EXITS = { SIGHUP: 156, SIGXFSZ: 151, SIGXCPU: 154 } as const;
const EADDRINUSE = 98;

/** An end with an error: what is logged, what is printed after `Error:`, and the exit code. */
class Failure extends Error {
  readonly debug: string;
  readonly exitCode: number;

  constructor(message: string, debug: string, exitCode: number = EXIT.generic) {
    super(message);
    this.name = "Failure";
    this.debug = debug;
    this.exitCode = exitCode;
  }
}

const logger = new Logger();

async function main(): Promise<void> {
  const args = parse(process.argv.slice(2));
  if (args.flag("help")) {
    console.log(`Firecracker v${VERSION}\n\n${formatHelp(FIRECRACKER_ARGUMENTS)}`);
    return;
  }
  if (args.flag("version")) {
    console.log(`Firecracker v${VERSION}\n`);
    return;
  }
  if (args.flag("snapshot-version")) {
    console.log(SNAPSHOT_VERSION);
    return;
  }
  const described = args.value("describe-snapshot");
  if (described !== undefined) {
    describeSnapshot(described);
    return;
  }
  await run(args);
}

async function run(args: Arguments): Promise<void> {
  const id = args.value("id") ?? DEFAULT_INSTANCE_ID;
  const fault = instanceIdFault(id);
  if (fault !== undefined) panic(`Invalid instance ID: ${fault.debug}`);
  setUpLogger(args, id);
  logger.log("info", `Running Firecracker v${VERSION}`);
  handleSignals();

  const config = readOrPanic(args.value("config-file"), "Unable to open or read from the configuration file");
  const metadata = readOrPanic(args.value("metadata"), "Unable to open or read from the mmds content file");
  const maxBody = sizeOrPanic(args, "http-api-max-payload-size") ?? DEFAULT_PAYLOAD_BYTES;
  const mmdsLimit = sizeOrPanic(args, "mmds-size-limit") ?? maxBody;
  const controller = new Controller({ id, logger, mmdsLimit, accelerator: acceleratorOfJail() });
  const metricsPath = args.value("metrics-path");
  if (metricsPath !== undefined) configureMetrics(controller, metricsPath);

  const server = args.flag("no-api") ? undefined : new ApiServer(controller, logger, maxBody);
  if (server !== undefined) await listen(server, args.value("api-sock") ?? "");
  if (metadata !== undefined) controller.metadata.put(JSON.parse(metadata));
  if (config !== undefined) {
    const booted = boot(config, controller, server !== undefined);
    server?.holdUntil(booted.catch(() => undefined));
    await booted;
  }

  const finish = await controller.finished;
  await server?.flush();
  end(finish);
}

/** Returns for a guest that reset; throws Failure for all else. */
function end(finish: Finish): void {
  if (finish.kind === "reset") {
    logger.log("info", "Vmm is stopping.");
    return;
  }
  if (finish.kind === "load-failed") {
    throw new Failure(
      "RunWithApiError error: Failed to build MicroVM: Loading snapshot failed..",
      "RunWithApi(BuildMicroVmError(Restore))",
    );
  }
  throw new Failure(
    `RunWithApiError error: MicroVM stopped with an error: GenericError (${finish.words})`,
    "RunWithApi(MicroVMStoppedWithError(GenericError))",
  );
}

async function listen(server: ApiServer, path: string): Promise<void> {
  try {
    await server.listen(path);
  } catch (cause) {
    if (errnoOf(cause) === EADDRINUSE) {
      throw new Failure(
        `RunWithApiError error: Failed to open the API socket at: ${path}. Check that it is not already used.`,
        `RunWithApi(FailedToBindSocket(${JSON.stringify(path)}))`,
      );
    }
    throw new Failure(
      `RunWithApiError error: Failed to bind and run the HTTP server: IO error: ${osErrorText(cause)}`,
      `RunWithApi(FailedToBindAndRunHttpServer(IOError(${osErrorDebug(cause)})))`,
    );
  }
  logger.log("info", `Listening on API socket (${JSON.stringify(path)}).`);
  logger.log("info", "API server started.", "fc_api");
}

async function boot(config: string, controller: Controller, hasApi: boolean): Promise<void> {
  try {
    await bootFromConfig(config, controller, logger);
    logger.log("info", "Successfully started microvm that was configured from one single json");
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const what = hasApi ? "RunWithApiError error" : "RunWithoutApiError error";
    throw new Failure(
      `${what}: Failed to build MicroVM from Json: ${error.message}`,
      `RunWith${hasApi ? "" : "out"}Api(BuildFromJson(${JSON.stringify(error.message)}))`,
    );
  }
}

function setUpLogger(args: Arguments, id: string): void {
  logger.setInstance(id);
  const named = args.value("level");
  const level = named === undefined ? null : parseLogLevel(named);
  if (level === undefined) {
    throw new Failure(
      `Invalid value for logger level: Failed to parse string to level filter: ${named}.Possible values: [Error, Warning, Info, Debug]`,
      `InvalidLogLevel(LevelFilterFromStrError(${JSON.stringify(named)}))`,
      EXIT.badConfiguration,
    );
  }
  const show = {
    show_level: args.flag("show-level") || null,
    show_log_origin: args.flag("show-log-origin") || null,
  };
  try {
    logger.update({ log_path: args.value("log-path") ?? null, level, ...show });
  } catch (cause) {
    throw new Failure(
      `Could not initialize logger: Failed to open target file: ${osErrorText(cause)}`,
      `LoggerInitialization(LoggerUpdateError(${osErrorDebug(cause)}))`,
    );
  }
}

function configureMetrics(controller: Controller, path: string): void {
  try {
    controller.metrics.configure(path);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const words = error.message.replace(/^Metrics error: /, "");
    throw new Failure(
      `Could not initialize metrics: ${words}`,
      `MetricsInitialization(${JSON.stringify(words)})`,
    );
  }
}

function describeSnapshot(path: string): void {
  try {
    readStateFile(path);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Failure(
      `When printing Snapshot Data format: Invalid data format version of snapshot file: ${error.message}`,
      `PrintSnapshotDataFormat(${JSON.stringify(error.message)})`,
    );
  }
  console.log(SNAPSHOT_VERSION);
}

function parse(argv: readonly string[]): Arguments {
  try {
    return parseArguments(FIRECRACKER_ARGUMENTS, argv);
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    // The two backslashes are in the real message, too.
    throw new Failure(
      `Arguments parsing error: ${error.message} \\n\\nFor more information try --help.`,
      `ParseArguments(${error.debug})`,
      EXIT.badArguments,
    );
  }
}

/** SIGTERM and SIGINT keep their defaults, so that the init of a pid namespace ignores them, as the real one does. */
function handleSignals(): void {
  for (const [signal, code] of Object.entries(SIGNAL_EXITS)) {
    process.on(signal, () => {
      logger.log("error", `Shutting down VM after intercepting signal ${signal}.`);
      process.exit(code);
    });
  }
}

function acceleratorOfJail(): Accelerator | undefined {
  const value = process.env["STANDIN_ACCELERATOR"];
  return value === "kvm" || value === "tcg" ? value : undefined;
}

function readOrPanic(path: string | undefined, words: string): string | undefined {
  if (path === undefined) return undefined;
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    return panic(`${words}: ${osErrorDebug(error)}`);
  }
}

function sizeOrPanic(args: Arguments, name: string): number | undefined {
  const text = args.value(name);
  if (text === undefined) return undefined;
  if (!/^\+?[0-9]+$/.test(text)) {
    panic(`'${name}' parameter expected to be of 'usize' type.: ParseIntError { kind: InvalidDigit }`);
  }
  return Number(text);
}

/** What the real program can't handle ends it by SIGABRT, and so it does here. */
function panic(words: string): never {
  logger.log("error", `Firecracker panicked: ${words}`);
  process.abort();
}

try {
  await main();
  logger.log("info", "Firecracker exiting successfully. exit_code=0");
  process.exit(EXIT.ok);
} catch (error) {
  const failure =
    error instanceof Failure ? error : new Failure(String(error), JSON.stringify(String(error)));
  logger.log("error", failure.message);
  console.error(`Error: ${failure.debug}`);
  logger.log("error", `Firecracker exiting with error. exit_code=${failure.exitCode}`);
  process.exit(failure.exitCode);
}
