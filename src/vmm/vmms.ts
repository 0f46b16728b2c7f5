import { readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../contract/errors.ts";
import type { HostItem, Mended } from "../model/inventory.ts";
import type { Log } from "../system/log.ts";
import { bootId, identifyProcess, type ProcessIdentity } from "../system/process.ts";
import { inventoryOf, mendVmms } from "./audit.ts";
import { Cgroups, detectCgroups } from "./cgroups.ts";
import { type Jail, Jails } from "./jail.ts";
import { launch } from "./launcher.ts";
import { type CheckedPair, choosePair, type Pair, writeProven } from "./pair.ts";
import { killAll, killAndWait, processesRootedAt } from "./processes.ts";
import { isStill } from "./recognition.ts";
import { endSave } from "./save.ts";
import { ApiSocket } from "./socket.ts";
import type { KnownVmm, LaunchSpec, Vmm, VmmDescription, Vmms, VmmRef } from "./types.ts";
import { LiveVmm } from "./vmm.ts";

/** A launch takes some 10 ms, seconds when the page cache is under pressure. */
const LAUNCH_TIMEOUT_MS = 30_000;

export interface VmmsOptions {
  /** The daemon's root folder. */
  readonly rootDir: string;
  /** Six hex digits that mark everything of this root on the host. */
  readonly tag: string;
  /** The pair that the operator named; one without the other is refused. */
  readonly firecrackerPath?: string | undefined;
  readonly jailerPath?: string | undefined;
  /** Taken when none was named and no installed pair is known to boot Linux here. */
  readonly fallback: Pair;
  /** Folders in which an installed pair is looked for, absolute. */
  readonly searchPath: readonly string[];
  /** Where our cgroups hang, below the hierarchy's root. Default: `computer-host-<tag>` at the top. */
  readonly cgroupParent?: string | undefined;
  /** Limit of one launch, in milliseconds. Default: 30 seconds. */
  readonly launchTimeoutMs?: number;
  readonly log: Log;
}

/** The VMMs of one daemon, run through the jailer. */
export function createVmms(options: VmmsOptions): Vmms {
  return new JailedVmms(options);
}

interface Opened {
  readonly pair: CheckedPair;
  readonly cgroups: Cgroups;
  readonly description: VmmDescription;
}

class JailedVmms implements Vmms {
  readonly #options: VmmsOptions;
  readonly #jails: Jails;
  readonly #provenFile: string;
  #opened: Opened | undefined;

  constructor(options: VmmsOptions) {
    this.#options = options;
    this.#jails = new Jails(options.rootDir);
    this.#provenFile = join(options.rootDir, "linux-booted.json");
  }

  async open(): Promise<void> {
    const { firecrackerPath, jailerPath, fallback, searchPath, tag, log } = this.#options;
    const pair = await choosePair({
      ...(firecrackerPath === undefined ? {} : { firecrackerPath }),
      ...(jailerPath === undefined ? {} : { jailerPath }),
      searchPath,
      fallback,
      provenFile: this.#provenFile,
    });
    await this.#jails.open(pair.firecrackerPath);
    const layout = await detectCgroups(await readFile("/proc/mounts", "utf8"));
    const cgroups = new Cgroups(layout, this.#options.cgroupParent ?? `computer-host-${tag}`);
    if (cgroups.missing.length > 0)
      log.warn(
        { controllers: cgroups.missing },
        "cgroup controllers are missing: VMMs are not limited by them",
      );
    const description: VmmDescription = {
      name: pair.label,
      version: pair.version.text,
      firecracker_path: await realpath(pair.firecrackerPath),
      jailer_path: await realpath(pair.jailerPath),
      reason: pair.reason,
    };
    this.#opened = { pair, cgroups, description };
    log.info({ ...description, cgroup_version: layout.version }, "VMM chosen");
  }

  get description(): VmmDescription {
    return this.#state.description;
  }

  get snapshotFormat(): string {
    return this.#state.pair.snapshotFormat;
  }

  get #state(): Opened {
    if (this.#opened === undefined) throw new Error("the vmm room is not open");
    return this.#opened;
  }

  get bootId(): string {
    return bootId();
  }

  newJailId(): string {
    return this.#jails.newId();
  }

  async launch(spec: LaunchSpec, signal?: AbortSignal): Promise<Vmm> {
    const { pair, cgroups } = this.#state;
    const parts = {
      pair,
      cgroups,
      jails: this.#jails,
      log: this.#options.log,
      timeoutMs: this.#options.launchTimeoutMs ?? LAUNCH_TIMEOUT_MS,
      release: async (ref: VmmRef): Promise<void> => await this.release(ref),
    };
    return await launch(parts, spec, signal);
  }

  async adopt(ref: VmmRef): Promise<Vmm | undefined> {
    const { process } = ref;
    if (process === undefined) return undefined;
    const jail = (await this.#jails.find(ref.jail_id)).find((candidate) => isStill(process, candidate, ref));
    if (jail === undefined) return undefined;
    using unclaimed = new DisposableStack();
    try {
      const socket = unclaimed.use(ApiSocket.open(jail.root, ref.uid));
      const idle = await socket.dial();
      await endSave(jail.root);
      unclaimed.move();
      const { version } = this.#state.pair;
      return new LiveVmm({ ...ref, process }, { socket, idle }, version, { root: jail.root });
    } catch (error) {
      this.#options.log.warn(
        { jail_id: ref.jail_id, pid: process.pid, error: messageOf(error) },
        "a VMM runs, but its API cannot be reached",
      );
      return undefined;
    }
  }

  async release(ref: VmmRef): Promise<void> {
    const { cgroups } = this.#state;
    const jails = await this.#jails.find(ref.jail_id);
    if (ref.process !== undefined) await killAndWait(ref.process);
    await killAll(async () => await this.#processesOf(ref, jails));
    await cgroups.remove(ref.jail_id);
    for (const jail of jails) await this.#jails.remove(jail);
  }

  async listJails(): Promise<string[]> {
    return await this.#jails.list();
  }

  async inventory(known: readonly KnownVmm[]): Promise<HostItem[]> {
    return await inventoryOf(this.#jails, this.#state.cgroups, known);
  }

  async mend(items: readonly HostItem[], known: readonly KnownVmm[]): Promise<Mended[]> {
    const release = async (ref: VmmRef): Promise<void> => await this.release(ref);
    return await mendVmms(this.#state.cgroups, release, items, known);
  }

  async noteLinuxBooted(): Promise<void> {
    await writeProven(this.#provenFile, this.#state.pair);
  }

  /** What still runs in the jail: what lies in its cgroups and, when its process was never recorded, what has it as root folder. */
  async #processesOf(ref: VmmRef, jails: readonly Jail[]): Promise<readonly ProcessIdentity[]> {
    const inGroups = (await this.#state.cgroups.processes(ref.jail_id))
      .filter((pid) => pid !== process.pid)
      .map(identifyProcess)
      .filter((found) => found !== undefined);
    // Looking at every process of the host costs milliseconds on a full one, so it is kept for when there is need.
    if (ref.process !== undefined) return inGroups;
    return [...inGroups, ...jails.flatMap((jail) => processesRootedAt(jail.root))];
  }
}
