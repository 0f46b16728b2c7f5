import { writeFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError, errnoOf, isDiskFull, messageOf } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";
import { identifyProcess, isAlive, type ProcessIdentity } from "../system/process.ts";
import { RunError, run } from "../system/run.ts";
import type { Cgroups } from "./cgroups.ts";
import type { Jail, Jails } from "./jail.ts";
import { JailWatch } from "./jail-watch.ts";
import type { CheckedPair } from "./pair.ts";
import { readPidFile, recognise } from "./recognition.ts";
import { API_SOCKET, ApiSocket } from "./socket.ts";
import type { LaunchSpec, VmmRef } from "./types.ts";
import { LiveVmm, withLogTail } from "./vmm.ts";

const CONNECT_AGAIN_MS = 2;
/** A guest's metadata with its keys is beyond the default of 50 KiB; the limit of the metadata store follows this one. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024;
/** What a full host lets `fork` or `open` fail with. */
const NO_ROOM = new Set(["EAGAIN", "ENOMEM", "EMFILE", "ENFILE"]);

export interface LauncherParts {
  readonly pair: CheckedPair;
  readonly jails: Jails;
  readonly cgroups: Cgroups;
  readonly log: Log;
  /** From the jailer's start to the API's first answer. */
  readonly timeoutMs: number;
  /** Undoes a launch, however far it came. */
  readonly release: (ref: VmmRef) => Promise<void>;
}

/**
 * Makes the jail, runs the jailer, recognises the VMM's process and waits until its API answers.
 * On failure everything is unmade. Throws `vmm_failed`, `vmm_timeout`, `host_full`, `disk_full`, or the signal's reason.
 */
export async function launch(parts: LauncherParts, spec: LaunchSpec, signal?: AbortSignal): Promise<LiveVmm> {
  const { pair, jails, cgroups } = parts;
  signal?.throwIfAborted();
  const logPath = sourceOf(spec, spec.log_path);
  sourceOf(spec, spec.metrics_path);
  const timeout = AbortSignal.timeout(parts.timeoutMs);
  const limit = signal === undefined ? timeout : AbortSignal.any([timeout, signal]);

  await using undo = new AsyncDisposableStack();
  try {
    const jail = await jails.locate(spec.jail_id, pair.firecrackerPath);
    if ((await jails.find(spec.jail_id)).length > 0)
      throw new AppError("internal", `The jail id ${spec.jail_id} was used before.`);
    await jails.make(jail, spec.files);
    undo.defer(async () => await undoLaunch(parts, spec));

    using _parent = await cgroups.prepare();
    using watch = new JailWatch(jail);
    await runJailer(parts, spec, limit);

    const { socket, process } = await arrival(jail, spec, watch, limit);
    using unclaimed = new DisposableStack();
    unclaimed.use(socket);
    const ref = {
      jail_id: spec.jail_id,
      uid: spec.uid,
      gid: spec.gid,
      netns_path: spec.netns_path,
      process,
    };
    const idle = await dialWhenListening(socket, process, limit);
    const vmm = new LiveVmm(ref, { socket, idle }, pair.version, { root: jail.root, logPath });
    undo.defer(async () => await vmm.detach());
    unclaimed.move();
    const id = await vmm.instanceId(limit);
    if (id !== spec.jail_id)
      throw new AppError("vmm_failed", `The VMM in jail ${spec.jail_id} calls itself ${JSON.stringify(id)}.`);
    undo.move();
    return vmm;
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason;
    throw await withLogTail(translate(error, timeout.aborted ? parts.timeoutMs : undefined), logPath);
  }
}

/** The host's path of a file in the jail. Throws `internal` when it is not among those that are linked into it. */
function sourceOf({ files }: LaunchSpec, path: string): string {
  const source = files.find((file) => file.path === path)?.source;
  if (source === undefined)
    throw new AppError("internal", `The VMM's ${path} is not among the files of its jail.`);
  return source;
}

async function runJailer(
  { pair, jails, cgroups, timeoutMs }: LauncherParts,
  spec: LaunchSpec,
  limit: AbortSignal,
): Promise<void> {
  const options = {
    id: spec.jail_id,
    "exec-file": pair.firecrackerPath,
    uid: String(spec.uid),
    gid: String(spec.gid),
    "chroot-base-dir": jails.base,
    netns: spec.netns_path,
  };
  const limits = [`fsize=${spec.limits.fsize_bytes}`, `no-file=${spec.limits.no_file}`];
  await run(
    [
      pair.jailerPath,
      ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]),
      ...cgroups.flags(spec.limits),
      ...limits.flatMap((limit) => ["--resource-limit", limit]),
      "--daemonize",
      "--new-pid-ns",
      "--",
      "--api-sock",
      API_SOCKET,
      "--log-path",
      spec.log_path,
      "--metrics-path",
      spec.metrics_path,
      // Info: the line of a clean end is of this level, and there is no other way to learn how a VMM ended.
      "--level",
      "Info",
      "--http-api-max-payload-size",
      String(MAX_PAYLOAD_BYTES),
      ...(spec.pci ? ["--enable-pci"] : []),
    ],
    { timeoutMs, signal: limit },
  );
}

/**
 * A daemonized jailer returns before pid file and socket exist. The VMM is looked at once both do: only then has it
 * become the program and the user that it is to be.
 */
async function arrival(
  jail: Jail,
  spec: LaunchSpec,
  watch: JailWatch,
  limit: AbortSignal,
): Promise<{ socket: ApiSocket; process: ProcessIdentity }> {
  const pid = await watch.until(() => readPidFile(jail), limit);
  const socket = await watch.until(() => {
    const found = openIfThere(jail, spec.uid);
    if (found === undefined && identifyProcess(pid) === undefined)
      throw new AppError("vmm_failed", "The VMM ended before its API was there.");
    return found;
  }, limit);
  const process = recognise(pid, jail, spec);
  if (!("misfit" in process)) {
    // A VMM inherits the daemon's protection from the OOM killer, and a guest is what should go first.
    await writeFile(`/proc/${process.pid}/oom_score_adj`, "0");
    return { socket, process };
  }
  socket.close();
  throw new AppError(
    "vmm_failed",
    `The jailer's process is not the VMM that was asked for: ${process.misfit}.`,
  );
}

function openIfThere(jail: Jail, uid: number): ApiSocket | undefined {
  try {
    return ApiSocket.open(jail.root, uid);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** The socket's file is there a moment before anybody listens. */
async function dialWhenListening(
  socket: ApiSocket,
  process: ProcessIdentity,
  limit: AbortSignal,
): Promise<Socket> {
  for (;;) {
    try {
      return await socket.dial();
    } catch (error) {
      if (errnoOf(error) !== "ECONNREFUSED" || !isAlive(process)) throw error;
    }
    await sleep(CONNECT_AGAIN_MS, undefined, { signal: limit });
  }
}

async function undoLaunch({ release, log }: LauncherParts, spec: LaunchSpec): Promise<void> {
  try {
    await release(spec);
  } catch (error) {
    // The launch's own error is the one to tell; the leftovers are found by the next release or audit.
    log.error({ jail_id: spec.jail_id, error: messageOf(error) }, "a failed launch was not wholly undone");
  }
}

/** What went wrong, as one of the registry's errors. */
function translate(error: unknown, timedOutMs: number | undefined): unknown {
  if (timedOutMs !== undefined)
    return new AppError("vmm_timeout", `The VMM was not there within ${timedOutMs} ms.`, {
      cause: error,
    });
  if (error instanceof AppError) return error;
  if (error instanceof RunError) {
    if (NO_ROOM.has(errnoOf(error.cause) ?? ""))
      return new AppError("host_full", "The host cannot start another process.", { cause: error });
    return new AppError("vmm_failed", `The jailer failed: ${error.stderr.trim() || error.message}`, {
      details: { jailer_stderr: error.stderr.trim(), exit_code: error.code },
      cause: error,
    });
  }
  if (isDiskFull(error))
    return new AppError("disk_full", "There is no room left for the VMM's jail.", { cause: error });
  return new AppError("vmm_failed", `The VMM could not be started: ${messageOf(error)}`, { cause: error });
}
