import type { Audit, Repair } from "../contract/audit.ts";
import { AppError } from "../contract/errors.ts";
import type { Health } from "../contract/health.ts";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { CreateMachine, ForkMachine, Machine, ResizeMachine } from "../contract/machine.ts";
import type {
  Compatibility,
  CreateSnapshot,
  RestoreSnapshot,
  Snapshot,
  UploadSnapshot,
  Uploaded,
} from "../contract/snapshot.ts";
import type { StorageReport } from "../contract/storage.ts";
import type { ReadableFile } from "../storage/types.ts";
import { openArtifact } from "./artifacts.ts";
import { type Auditor, type HostContext, type HostSettings, makeContext, type Rooms } from "./context.ts";
import { compatibility } from "./compatibility.ts";
import { createMachine } from "./create.ts";
import { deleteMachine } from "./delete.ts";
import { deleteSnapshot } from "./delete-snapshot.ts";
import { forkMachine } from "./fork.ts";
import { lookAtHealth } from "./health.ts";
import { Patrol } from "./patrol.ts";
import { pauseMachine, resumeMachine } from "./pause.ts";
import { presentMachine, presentSnapshot } from "./present.ts";
import { recover } from "./recover.ts";
import { repairAll } from "./repair.ts";
import { resizeMachine } from "./resize.ts";
import { Restarts } from "./restarts.ts";
import { restoreSnapshot } from "./restore.ts";
import { snapshotMachine } from "./snapshot.ts";
import { startMachine } from "./start.ts";
import { stopMachine } from "./stop.ts";
import { audit } from "./survey.ts";
import { Trace } from "./trace.ts";
import { uploadSnapshot } from "./upload.ts";

/** How long operations under way may take to end when the daemon is asked to end. */
const CLOSE_TIMEOUT_MS = 10_000;

/** The service: what the API offers, on one host. */
export class Host {
  readonly #context: HostContext;
  readonly #started = performance.now();
  readonly #restarts: Restarts;
  readonly #patrol: Patrol;
  readonly #closeTimeoutMs: number;
  #closing = false;

  constructor(rooms: Rooms, settings: HostSettings, closeTimeoutMs = CLOSE_TIMEOUT_MS) {
    this.#context = makeContext(rooms, settings);
    this.#restarts = new Restarts(this.#context);
    this.#patrol = new Patrol(this.#context, this.#restarts);
    this.#closeTimeoutMs = closeTimeoutMs;
  }

  /** Takes up what a former run left. The rooms are open. */
  async open(): Promise<void> {
    await recover(this.#context);
    this.#restarts.plan();
    this.#patrol.start(this.#context.settings.reconcileIntervalMs);
  }

  /**
   * Waits for operations under way to end, breaks off those that take too long, and lets go of the guests, which run on.
   * The rooms are closed by who opened them.
   */
  async close(): Promise<void> {
    this.#closing = true;
    this.#restarts.stop();
    await this.#patrol.stop();
    using _noRepair = await this.#context.repairs.acquire("repair");
    const reason = new AppError("shutting_down", "the daemon ended while this was under way; it was undone");
    const limit = setTimeout(() => this.#context.creations.end(reason), this.#closeTimeoutMs);
    await this.#context.underWay.idle();
    clearTimeout(limit);
    const { live } = this.#context;
    const guests = [...live.values()];
    live.clear();
    await Promise.all(guests.map((vmm) => vmm.detach()));
  }

  /** A trace for one request. */
  trace(log: HostContext["log"] = this.#context.log): Trace {
    return new Trace(log);
  }

  async create(request: CreateMachine, trace: Trace): Promise<{ machine: Machine; created: boolean }> {
    const { record, created } = await this.#work(() => createMachine(this.#context, request, trace));
    return { machine: this.#present(record), created };
  }

  async restore(
    id: SnapshotId,
    request: RestoreSnapshot,
    trace: Trace,
  ): Promise<{ machine: Machine; created: boolean }> {
    const { record, created } = await this.#work(() => restoreSnapshot(this.#context, id, request, trace));
    return { machine: this.#present(record), created };
  }

  async fork(
    id: MachineId,
    request: ForkMachine,
    trace: Trace,
  ): Promise<{ machines: Machine[]; created: boolean }> {
    const { records, created } = await this.#work(() => forkMachine(this.#context, id, request, trace));
    return { machines: records.map((record) => this.#present(record)), created };
  }

  async stop(id: MachineId, trace: Trace): Promise<void> {
    await this.#work(() => stopMachine(this.#context, id, trace));
  }

  async start(id: MachineId, trace: Trace): Promise<Machine> {
    return this.#present(await this.#work(() => startMachine(this.#context, id, trace)));
  }

  async pause(id: MachineId, trace: Trace): Promise<Machine> {
    return this.#present(await this.#work(() => pauseMachine(this.#context, id, trace)));
  }

  async resume(id: MachineId, trace: Trace): Promise<Machine> {
    return this.#present(await this.#work(() => resumeMachine(this.#context, id, trace)));
  }

  async resize(id: MachineId, request: ResizeMachine, trace: Trace): Promise<Machine> {
    return this.#present(await this.#work(() => resizeMachine(this.#context, id, request, trace)));
  }

  async delete(id: MachineId, trace: Trace): Promise<void> {
    await this.#work(() => deleteMachine(this.#context, id, trace));
  }

  async snapshot(id: MachineId, request: CreateSnapshot, trace: Trace): Promise<Snapshot> {
    return presentSnapshot(await this.#work(() => snapshotMachine(this.#context, id, request, trace)));
  }

  async deleteSnapshot(id: SnapshotId, trace: Trace): Promise<void> {
    await this.#work(() => deleteSnapshot(this.#context, id, trace));
  }

  /** Whether the snapshot can be restored on this host, and why not. */
  async compatibility(id: SnapshotId): Promise<Compatibility> {
    return await this.#work(() => compatibility(this.#context, id));
  }

  /** One file of a snapshot, open until the caller closes it. */
  async openArtifact(id: SnapshotId, artifactId: string): Promise<ReadableFile> {
    return await this.#work(() => openArtifact(this.#context, id, artifactId));
  }

  async upload(id: SnapshotId, plan: UploadSnapshot, trace: Trace): Promise<Uploaded> {
    return await this.#work(() => uploadSnapshot(this.#context, id, plan, trace));
  }

  /** All machines, oldest first. */
  listMachines(): Machine[] {
    return [...this.#context.state.state.machines.values()]
      .map((record) => this.#present(record))
      .sort(byAge);
  }

  getMachine(id: MachineId): Machine {
    const record = this.#context.state.state.machines.get(id);
    if (record === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
    return this.#present(record);
  }

  /** Snapshots of a machine, oldest first. A deleted machine's snapshots are still listed under its id. */
  listSnapshots(id: MachineId): Snapshot[] {
    const { machines, snapshots } = this.#context.state.state;
    const found = [...snapshots.values()].filter(({ machine_id }) => machine_id === id).map(presentSnapshot);
    if (found.length === 0 && !machines.has(id))
      throw new AppError("machine_not_found", `there is no machine ${id}`);
    return found.sort(byAge);
  }

  getSnapshot(id: SnapshotId): Snapshot {
    const record = this.#context.state.state.snapshots.get(id);
    if (record === undefined) throw new AppError("snapshot_not_found", `there is no snapshot ${id}`);
    return presentSnapshot(record);
  }

  /** What disks, snapshots and images take up, as the filesystem tells it: half-made ones of an operation under way are among them. */
  async storageReport(): Promise<StorageReport> {
    const { storage, settings } = this.#context;
    const { machines, snapshots, ...usage } = await storage.usage();
    return {
      root_dir: settings.rootDir,
      clone_mode: storage.cloneMode,
      ...usage,
      machines: [...machines],
      snapshots: [...snapshots],
    };
  }

  /** Has the audit look at something beside the rooms, and the repair mend it. */
  watch(auditor: Auditor): void {
    this.#context.auditors.push(auditor);
  }

  async audit(): Promise<Audit> {
    return await audit(this.#context);
  }

  async repair(): Promise<Repair> {
    if (this.#closing) throw new AppError("shutting_down", "the daemon is ending");
    return await repairAll(this.#context);
  }

  async health(): Promise<Health> {
    const uptime_seconds = Math.round(performance.now() - this.#started) / 1000;
    return await lookAtHealth(this.#context, uptime_seconds, this.#closing);
  }

  #present(record: Parameters<typeof presentMachine>[0]): Machine {
    return presentMachine(record, this.#context);
  }

  /** Counts work under way, so that the daemon's end waits for it; a client that hangs up ends nothing. */
  async #work<Result>(start: () => Promise<Result>): Promise<Result> {
    if (this.#closing) throw new AppError("shutting_down", "the daemon is ending");
    using _work = this.#context.underWay.enter();
    return await start();
  }
}

function byAge(a: { created_at: string; id: string }, b: { created_at: string; id: string }): number {
  return a.created_at === b.created_at ? (a.id < b.id ? -1 : 1) : a.created_at < b.created_at ? -1 : 1;
}
