import type { Socket } from "node:net";
import { AppError } from "../contract/errors.ts";
import type { ProcessIdentity } from "../system/process.ts";
import { FirecrackerApi } from "./api.ts";
import { bootGuest } from "./boot.ts";
import { tellDiskGrew } from "./disk-grew.ts";
import { loadGuest } from "./load.ts";
import { readLogTail } from "./log-tail.ts";
import { killAndWait } from "./processes.ts";
import { saveGuest, saveTimeoutMs } from "./save.ts";
import type { ApiSocket } from "./socket.ts";
import type { FrozenGuest, GuestHardware, SaveTarget, Vmm, VmmRef } from "./types.ts";
import type { Version } from "./version.ts";
import { DeathWatch } from "./watch.ts";

/** Pausing waits for the vCPUs to leave the guest, on a busy host more than a moment. */
const CALL_TIMEOUT_MS = 10_000;

export type LiveRef = VmmRef & { readonly process: ProcessIdentity };

/** What a VMM has on the host. */
export interface Place {
  /** Root folder of its jail. */
  readonly root: string;
  /** Its log, where that is known. */
  readonly logPath?: string;
}

/** A VMM that runs, with the connections to it. */
export class LiveVmm implements Vmm {
  readonly ref: LiveRef;
  readonly #socket: ApiSocket;
  readonly #api: FirecrackerApi;
  readonly #watch: DeathWatch;
  readonly #version: Version;
  readonly #place: Place;

  /** Takes over `socket` and `idle`, a connection to it that is only watched. */
  constructor(ref: LiveRef, ways: { socket: ApiSocket; idle: Socket }, version: Version, place: Place) {
    this.ref = ref;
    this.#socket = ways.socket;
    this.#api = new FirecrackerApi(ways.socket);
    this.#watch = new DeathWatch(ref.process, ways.idle);
    this.#version = version;
    this.#place = place;
  }

  get gone(): AbortSignal {
    return this.#watch.gone;
  }

  /** The id that the VMM says it has. */
  async instanceId(signal?: AbortSignal): Promise<unknown> {
    const info = await this.#api.send({ method: "GET", path: "/", timeoutMs: CALL_TIMEOUT_MS, signal });
    return typeof info === "object" && info !== null && "id" in info ? info.id : undefined;
  }

  async boot(hardware: GuestHardware, signal?: AbortSignal): Promise<void> {
    await this.#explained(bootGuest(this.#api, this.#version, hardware, signal));
  }

  async load(frozen: FrozenGuest, signal?: AbortSignal): Promise<void> {
    await this.#explained(loadGuest(this.#api, this.#version, frozen, signal));
  }

  async save(target: SaveTarget, memoryMib: number): Promise<void> {
    await this.#explained(saveGuest(this.#api, this.#place.root, target, saveTimeoutMs(memoryMib)));
  }

  async diskGrew(): Promise<void> {
    await tellDiskGrew(this.#api, CALL_TIMEOUT_MS);
  }

  async pause(): Promise<void> {
    await this.#setState("Paused");
  }

  async resume(): Promise<void> {
    await this.#setState("Resumed");
  }

  async sendCtrlAltDel(): Promise<void> {
    await this.#api.send({
      method: "PUT",
      path: "/actions",
      body: { action_type: "SendCtrlAltDel" },
      timeoutMs: CALL_TIMEOUT_MS,
    });
  }

  async waitGone(timeoutMs: number): Promise<boolean> {
    if (this.#watch.check()) return true;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, timeoutMs);
    const ended = (): void => resolve();
    this.gone.addEventListener("abort", ended, { once: true });
    await promise;
    clearTimeout(timer);
    this.gone.removeEventListener("abort", ended);
    return this.#watch.check();
  }

  async kill(): Promise<void> {
    await killAndWait(this.ref.process);
    this.#watch.check();
    await this.detach();
  }

  async detach(): Promise<void> {
    this.#watch.stop();
    await this.#api.close();
    this.#socket.close();
  }

  /** Waits for a call, and adds the end of the VMM's log to its failure. */
  async #explained(call: Promise<void>): Promise<void> {
    try {
      await call;
    } catch (error) {
      throw await withLogTail(error, this.#place.logPath);
    }
  }

  async #setState(state: "Paused" | "Resumed"): Promise<void> {
    await this.#api.send({ method: "PATCH", path: "/vm", body: { state }, timeoutMs: CALL_TIMEOUT_MS });
  }
}

/** The same error, with the end of the VMM's log among its details where it is about the VMM. */
export async function withLogTail(error: unknown, logPath: string | undefined): Promise<unknown> {
  if (!(error instanceof AppError) || (error.code !== "vmm_failed" && error.code !== "vmm_timeout"))
    return error;
  const log = logPath === undefined ? "" : await readLogTail(logPath);
  if (log === "") return error;
  return new AppError(error.code, error.message, {
    details: { ...error.details, vmm_log: log },
    cause: error,
  });
}
