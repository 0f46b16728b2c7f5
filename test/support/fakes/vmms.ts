import { AppError } from "../../../src/contract/errors.ts";
import type { HostItem, Mended } from "../../../src/model/inventory.ts";
import type { ProcessIdentity } from "../../../src/system/process.ts";
import type {
  FrozenGuest,
  GuestHardware,
  KnownVmm,
  LaunchSpec,
  SaveTarget,
  Vmm,
  VmmDescription,
  Vmms,
  VmmRef,
} from "../../../src/vmm/types.ts";

type GuestState = "not started" | "running" | "paused" | "dead";

/** A VMM that exists only here. It lives in its `FakeVmms`, and in the next one that is given the same jails. */
export class FakeMachine {
  readonly spec: LaunchSpec;
  readonly process: ProcessIdentity;
  /** What it was booted with, when it was. */
  hardware: GuestHardware | undefined;
  /** What was loaded into it, when it was not booted. */
  frozen: FrozenGuest | undefined;
  /** What it was saved into, the last one last. */
  readonly saved: SaveTarget[] = [];
  /** How often it was told that its disk grew. */
  diskGrew = 0;
  state: GuestState = "not started";
  /** Told when it dies, in this daemon's life. */
  readonly watchers = new Set<() => void>();

  constructor(spec: LaunchSpec, process: ProcessIdentity) {
    this.spec = spec;
    this.process = process;
  }

  get alive(): boolean {
    return this.state !== "dead";
  }

  /** Dies, as a VMM does whose guest powered off. */
  die(): void {
    if (!this.alive) return;
    this.state = "dead";
    for (const tell of this.watchers) tell();
  }
}

/**
 * The vmm room in memory: legal states as Firecracker has them, jails that stay until they are released.
 * Knobs make the next calls fail; `jails` is the host as a test sees it.
 */
export class FakeVmms implements Vmms {
  readonly jails: Map<string, FakeMachine>;
  readonly description: VmmDescription = {
    name: "fake",
    version: "1.17.0",
    firecracker_path: "/fake/firecracker",
    jailer_path: "/fake/jailer",
    reason: "a test's",
  };
  snapshotFormat = "11.0.0";
  bootId = "fake-boot";
  /** Thrown by the calls of that name, as long as it is set. A load that fails ends the VMM. */
  fail: Partial<
    Record<"launch" | "boot" | "load" | "save" | "diskGrew" | "pause" | "resume" | "release" | "adopt", Error>
  > = {};
  /** Awaited at the start of the calls of that name: a test holds an operation there. */
  hold: Partial<Record<"launch" | "boot" | "load" | "save", Promise<void>>> = {};
  /** False: guests do not listen to Ctrl-Alt-Del. */
  guestsListen = true;
  /** VMMs that the daemon keeps a connection to: launched or adopted, and neither killed nor detached since. */
  readonly connected = new Set<Vmm>();
  linuxBooted = 0;
  #next = 1;

  /** `jails` of another fake: a daemon that starts again beside VMs that live on. */
  constructor(jails: Map<string, FakeMachine> = new Map()) {
    this.jails = jails;
  }

  open(): Promise<void> {
    return Promise.resolve();
  }

  newJailId(): string {
    while (this.jails.has(`jail${this.#next}`)) this.#next += 1;
    const id = `jail${this.#next}`;
    this.#next += 1;
    return id;
  }

  async launch(spec: LaunchSpec, signal?: AbortSignal): Promise<Vmm> {
    await orAbort(this.hold.launch, signal);
    if (this.fail.launch !== undefined) throw this.fail.launch;
    if (this.jails.has(spec.jail_id))
      throw new AppError("internal", `jail id ${spec.jail_id} was used before`);
    for (const path of [spec.log_path, spec.metrics_path])
      if (!hasFile(spec, path)) throw new AppError("internal", `${path} is not among the files`);
    const process = { pid: 100_000 + this.jails.size, start_time_ticks: this.#next, boot_id: "fake-boot" };
    const machine = new FakeMachine(spec, process);
    this.jails.set(spec.jail_id, machine);
    return new FakeVmm(this, machine);
  }

  async adopt(ref: VmmRef): Promise<Vmm | undefined> {
    await Promise.resolve();
    if (this.fail.adopt !== undefined) throw this.fail.adopt;
    const machine = this.jails.get(ref.jail_id);
    if (machine === undefined || !machine.alive || ref.process === undefined) return undefined;
    const { spec, process } = machine;
    const same =
      ref.process.pid === process.pid &&
      ref.process.start_time_ticks === process.start_time_ticks &&
      ref.process.boot_id === process.boot_id &&
      ref.uid === spec.uid &&
      ref.gid === spec.gid &&
      ref.netns_path === spec.netns_path;
    return same ? new FakeVmm(this, machine) : undefined;
  }

  async release(ref: VmmRef): Promise<void> {
    await Promise.resolve();
    if (this.fail.release !== undefined) throw this.fail.release;
    this.jails.get(ref.jail_id)?.die();
    this.jails.delete(ref.jail_id);
  }

  listJails(): Promise<string[]> {
    return Promise.resolve([...this.jails.keys()]);
  }

  /** Jails without a record are leaks; of those with one, a VMM that died is missing. */
  inventory(known: readonly KnownVmm[]): Promise<HostItem[]> {
    const ids = new Set(known.map(({ jail_id }) => jail_id));
    const item = (resource: "jail" | "process", id: string, status: HostItem["status"]): HostItem => ({
      resource,
      name: id,
      holder: { of: "jail", id },
      status,
    });
    return Promise.resolve([
      ...[...this.jails.keys()].map((id) => item("jail", id, ids.has(id) ? "ok" : "leaked")),
      ...known.flatMap(({ jail_id, process }) =>
        process === undefined
          ? []
          : [item("process", jail_id, this.jails.get(jail_id)?.alive === true ? "ok" : "missing")],
      ),
    ]);
  }

  async mend(items: readonly HostItem[]): Promise<Mended[]> {
    const results: Mended[] = [];
    for (const { resource, name, holder, status } of items) {
      if (holder.of !== "jail" || status !== "leaked") continue;
      const failure = this.fail.release;
      if (failure === undefined) await this.release({ jail_id: holder.id, uid: -1, gid: -1, netns_path: "" });
      const reason = failure === undefined ? {} : { reason: failure.message };
      results.push({ resource, name, action: "removed", ok: failure === undefined, ...reason });
    }
    return results;
  }

  noteLinuxBooted(): Promise<void> {
    this.linuxBooted += 1;
    return Promise.resolve();
  }
}

class FakeVmm implements Vmm {
  readonly ref: VmmRef & { readonly process: ProcessIdentity };
  readonly #room: FakeVmms;
  readonly #machine: FakeMachine;
  readonly #gone = new AbortController();
  readonly #tell = (): void => this.#gone.abort(new Error("the VMM is gone"));

  constructor(room: FakeVmms, machine: FakeMachine) {
    const { jail_id, uid, gid, netns_path } = machine.spec;
    this.ref = { jail_id, uid, gid, netns_path, process: machine.process };
    this.#room = room;
    this.#machine = machine;
    machine.watchers.add(this.#tell);
    room.connected.add(this);
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  async boot(hardware: GuestHardware, signal?: AbortSignal): Promise<void> {
    await orAbort(this.#room.hold.boot, signal);
    this.#check("PUT /actions", ["not started"], this.#room.fail.boot);
    this.#machine.hardware = hardware;
    this.#machine.state = "running";
  }

  async load(frozen: FrozenGuest, signal?: AbortSignal): Promise<void> {
    await orAbort(this.#room.hold.load, signal);
    const { spec } = this.#machine;
    const missing = [frozen.state_path, frozen.memory_path].find((path) => !hasFile(spec, path));
    const failure =
      this.#room.fail.load ??
      (missing === undefined
        ? undefined
        : new AppError("vmm_failed", `The VMM refused PUT /snapshot/load: there is no ${missing}.`));
    if (failure !== undefined && this.#machine.state === "not started") this.#machine.die();
    this.#check("PUT /snapshot/load", ["not started"], failure);
    this.#machine.frozen = frozen;
    this.#machine.state = "paused";
  }

  async save(target: SaveTarget, memoryMib: number): Promise<void> {
    await this.#room.hold.save;
    if (memoryMib <= 0) throw new Error("a guest without memory");
    this.#check("PUT /snapshot/create", ["paused"], this.#room.fail.save);
    this.#machine.saved.push(target);
  }

  async diskGrew(): Promise<void> {
    await Promise.resolve();
    this.#check("PATCH /drives/rootfs", ["running", "paused"], this.#room.fail.diskGrew);
    this.#machine.diskGrew += 1;
  }

  async pause(): Promise<void> {
    await Promise.resolve();
    this.#check("PATCH /vm", ["running", "paused"], this.#room.fail.pause);
    this.#machine.state = "paused";
  }

  async resume(): Promise<void> {
    await Promise.resolve();
    this.#check("PATCH /vm", ["running", "paused"], this.#room.fail.resume);
    this.#machine.state = "running";
  }

  async sendCtrlAltDel(): Promise<void> {
    await Promise.resolve();
    this.#check("PUT /actions", ["running", "paused"], undefined);
    if (this.#room.guestsListen && this.#machine.state === "running") this.#machine.die();
  }

  async waitGone(timeoutMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, timeoutMs);
    const ended = (): void => resolve();
    this.#machine.watchers.add(ended);
    if (this.#machine.alive) await promise;
    clearTimeout(timer);
    this.#machine.watchers.delete(ended);
    return !this.#machine.alive;
  }

  async kill(): Promise<void> {
    this.#machine.die();
    await this.detach();
  }

  detach(): Promise<void> {
    this.#machine.watchers.delete(this.#tell);
    this.#room.connected.delete(this);
    return Promise.resolve();
  }

  #check(call: string, legal: readonly GuestState[], failure: Error | undefined): void {
    if (failure !== undefined) throw failure;
    const { state } = this.#machine;
    if (state === "dead")
      throw new AppError("vmm_failed", `The VMM broke off ${call}.`, { details: { call } });
    if (!legal.includes(state))
      throw new AppError("vmm_failed", `The VMM refused ${call}: it is ${state}.`, {
        details: { call, status: 400 },
      });
  }
}

function hasFile({ files }: LaunchSpec, path: string): boolean {
  return files.some((file) => file.path === path);
}

/** Waits for `held`, or throws the signal's reason as soon as that is aborted. */
async function orAbort(held: Promise<void> | undefined, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  if (held === undefined) return;
  const { promise, reject } = Promise.withResolvers<never>();
  const aborted = (): void => reject(signal?.reason);
  signal?.addEventListener("abort", aborted, { once: true });
  try {
    await Promise.race([held, promise]);
  } finally {
    signal?.removeEventListener("abort", aborted);
  }
}
