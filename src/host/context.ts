import { EventEmitter } from "node:events";
import type { MachineId } from "../contract/ids.ts";
import type { Guests } from "../guest/types.ts";
import type { HostItem, Mended } from "../model/inventory.ts";
import type { Network } from "../network/types.ts";
import type { StateStore } from "../state/types.ts";
import type { Storage } from "../storage/types.ts";
import type { Clock } from "../system/clock.ts";
import type { Log } from "../system/log.ts";
import { KeyedMutex } from "../system/mutex.ts";
import type { Vmm, Vmms } from "../vmm/types.ts";
import { Admission } from "./admission.ts";
import type { Attempts } from "./abandoned.ts";
import { Creations } from "./creations.ts";
import { UnderWay } from "./under-way.ts";

/** The rooms below, by their doors. */
export interface Rooms {
  readonly state: StateStore;
  readonly network: Network;
  readonly storage: Storage;
  readonly guests: Guests;
  readonly vmms: Vmms;
  readonly clock: Clock;
  readonly log: Log;
}

/** What the operations need of the settings. */
export interface HostSettings {
  readonly rootDir: string;
  readonly tag: string;
  readonly defaultImage: string;
  readonly driveIoEngine: "Sync" | "Async";
  readonly enablePci: boolean;
  readonly memoryOvercommit: number;
  readonly readyTimeoutMs: number;
  readonly stopTimeoutMs: number;
  readonly reconcileIntervalMs: number;
  /** What the operator should know of how the daemon was started. */
  readonly startWarnings: readonly string[];
}

/** Something beside the rooms that can be lost and mended, such as the socket of the API. */
export interface Auditor {
  inventory(): readonly HostItem[];
  /** Mends those of the items that are its own, and leaves the others out. */
  mend(items: readonly HostItem[]): Promise<Mended[]>;
}

/** What all operations of one host share. */
export interface HostContext extends Rooms {
  readonly settings: HostSettings;
  /** One operation at a time on a machine. Taken before a snapshot's lock, never after it. */
  readonly machineLocks: KeyedMutex;
  readonly snapshotLocks: KeyedMutex;
  readonly admission: Admission;
  /** The VMMs of running machines. */
  readonly live: Map<MachineId, Vmm>;
  /** Creates, restores and starts that are under way or wait for their turn, so that a delete can end them. */
  readonly creations: Creations;
  readonly underWay: UnderWay;
  /** Operations that could neither be ended nor undone, and how often that was tried, by id. */
  readonly attempts: Map<string, Attempts>;
  /** Told when a machine has ended that is to be started again. */
  readonly restartWanted: EventEmitter<{ wanted: [] }>;
  /** One repair at a time. */
  readonly repairs: KeyedMutex;
  /** What is looked at and mended beside the rooms. */
  readonly auditors: Auditor[];
}

export function makeContext(rooms: Rooms, settings: HostSettings): HostContext {
  return {
    ...rooms,
    settings,
    machineLocks: new KeyedMutex(),
    snapshotLocks: new KeyedMutex(),
    admission: new Admission(settings.memoryOvercommit),
    live: new Map(),
    creations: new Creations(),
    underWay: new UnderWay(),
    attempts: new Map(),
    restartWanted: new EventEmitter(),
    repairs: new KeyedMutex(),
    auditors: [],
  };
}
