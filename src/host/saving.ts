import { AppError } from "../contract/errors.ts";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { ManifestDraft } from "../model/manifest.ts";
import type { MachineRecord } from "../model/records.ts";
import type { MadeDisk } from "../storage/types.ts";
import type { Vmm } from "../vmm/types.ts";
import type { HostContext } from "./context.ts";
import { addressOf } from "./guest-address.ts";
import { recordedHardware } from "./hardware.ts";
import { hostFacts } from "./host-facts.ts";
import { holdAsRecorded } from "./pause.ts";
import type { Trace } from "./trace.ts";
import type { UndoStack } from "./undo.ts";

/** A guest that answers writes out what it has; a busy one may take a while over it. */
const SYNC_TIMEOUT_MS = 30_000;
const MIB = 1024 * 1024;

export type MemoryKind = "none" | "full" | "diff";

/** What was taken of a machine at one instant and lies in the snapshot's staging folder. */
export interface Saved {
  readonly disk: MadeDisk;
  readonly consistency: "synced" | "crash";
  /** How long the guest stood still for it, in milliseconds. */
  readonly paused_ms: number;
}

/**
 * Refuses (`wrong_phase`, `no_memory_base`, `not_supported`) what cannot be taken of the machine as it is.
 */
export function refuseUnsavable(context: HostContext, machine: MachineRecord, kind: MemoryKind): void {
  const { id, phase } = machine;
  if (phase !== "running" && (kind !== "none" || phase !== "stopped")) {
    const reason =
      kind === "none"
        ? `machine ${id} is ${phase}; only a running or stopped one has a disk to keep`
        : `machine ${id} is ${phase}; only a running one has memory to keep`;
    throw new AppError("wrong_phase", reason, { details: { phase } });
  }
  if (kind === "none") return;
  if (machine.ready === "ssh" && machine.identity.own_login_key !== true) {
    throw new AppError(
      "not_supported",
      `machine ${id} was made before guests had login keys of their own, and one that wakes from its memory could not be reached; a snapshot of its disk can be taken`,
      { details: { field: "memory" } },
    );
  }
  const { huge_pages, track_dirty_pages } = recordedHardware(machine, context.settings);
  if (huge_pages !== "None") {
    throw new AppError(
      "not_supported",
      `machine ${id} has its memory in huge pages, and a VMM does not load memory from a file into such; a snapshot of its disk can be taken`,
      { details: { field: "memory", huge_pages } },
    );
  }
  if (kind !== "diff") return;
  if (machine.has_memory_base === true && !isBaseInDoubt(context, id)) return;
  const why = track_dirty_pages
    ? "there is no earlier snapshot with memory since it started, or one that failed made it void: take a full one"
    : "it does not track dirty pages: create it with track_dirty_pages";
  throw new AppError("no_memory_base", `a diff of machine ${id} has nothing to stand on: ${why}`, {
    details: { field: "memory" },
  });
}

/**
 * True when an earlier save failed and could not be undone wholly, which its intent tells of: the VMM may have begun
 * to note anew what changed, while the record still names the memory from before.
 */
function isBaseInDoubt({ state }: HostContext, id: MachineId): boolean {
  return [...state.state.operations.values()].some(
    ({ kind, machine_id }) => machine_id === id && (kind === "snapshot" || kind === "fork"),
  );
}

/**
 * Takes the machine's disk, and its memory where `kind` says so, at one instant, into the staging folder of `snapshot`.
 * The guest writes its caches out, stands still for as long as that takes, and goes on. One that was paused before stays
 * so, and could not write out. Registers the undos: the guest is held as recorded, staged files are removed by the
 * caller's own undo. Throws `vmm_failed`, `disk_full`, `snapshot_exists`.
 */
export async function save(
  context: HostContext,
  machine: MachineRecord,
  snapshot: SnapshotId,
  kind: MemoryKind,
  { undo, trace }: { readonly undo: UndoStack; readonly trace: Trace },
): Promise<Saved> {
  const { state, storage, live } = context;
  const { id } = machine;
  const vmm = live.get(id);
  if (vmm === undefined && machine.phase === "running")
    throw new AppError("vmm_failed", `the VMM of machine ${id} is gone`);
  const synced = await trace.step("sync", () => syncGuest(context, machine));
  if (vmm === undefined) {
    const disk = await trace.step("clone", () => storage.stageSnapshot(id, snapshot));
    return { disk, consistency: synced ? "synced" : "crash", paused_ms: 0 };
  }
  const target = kind === "none" ? undefined : await stageMemory(context, machine, snapshot, kind, vmm);
  undo.push("pause", () => holdAsRecorded(context, id));
  const started = performance.now();
  await trace.step("pause", () => vmm.pause());
  if (target !== undefined) {
    // From here on the VMM tells what changed since this save, so what was saved before is no base any more.
    undo.push("memory base", () => voidMemoryBase(context, id));
    await trace.step("save", () => vmm.save(target, machine.memory_mib));
  }
  const disk = await trace.step("clone", () => storage.stageSnapshot(id, snapshot));
  const stays = state.state.machines.get(id)?.paused === true;
  if (!stays) await trace.step("resume", () => vmm.resume());
  const paused_ms = stays ? 0 : Math.round((performance.now() - started) * 10) / 10;
  return { disk, consistency: synced ? "synced" : "crash", paused_ms };
}

async function stageMemory(
  { storage }: HostContext,
  { id, memory_mib }: MachineRecord,
  snapshot: SnapshotId,
  kind: "full" | "diff",
  { ref: { uid, gid } }: Vmm,
) {
  const owner = { uid, gid, memoryBytes: memory_mib * MIB };
  return { kind, ...(await storage.stageMemory(id, snapshot, kind, owner)) };
}

/** The machine has no base for a diff any more: its record says so before the file goes. */
export async function voidMemoryBase({ state, storage }: HostContext, id: MachineId): Promise<void> {
  const latest = state.state.machines.get(id);
  if (latest?.has_memory_base === true) {
    const { has_memory_base: _base, ...record } = latest;
    await state.commit({ put: "machine", record });
  }
  if (latest !== undefined) await storage.dropMemoryBase(id);
}

/** True when everything the guest wrote is on its disk: it said so, or it went down cleanly. */
async function syncGuest({ guests }: HostContext, machine: MachineRecord): Promise<boolean> {
  if (machine.phase === "stopped") return machine.stopped_cleanly === true;
  if (machine.ready !== "ssh" || machine.slot === undefined || machine.paused === true) return false;
  return await guests.sync(addressOf(machine.slot.runtime_host, machine.identity), SYNC_TIMEOUT_MS);
}

/** What the snapshot's manifest says, but for its files. */
export function manifestOf(
  { vmms, guests, settings }: HostContext,
  machine: MachineRecord,
  snapshot_id: SnapshotId,
  memory_kind: MemoryKind,
  taken: { readonly consistency: "synced" | "crash"; readonly created_at: string },
): ManifestDraft {
  const { slot, identity } = machine;
  // What it was launched under, which an upgrade of the pair leaves running.
  const { name, version } = machine.vmm ?? vmms.description;
  return {
    format: 2,
    snapshot_id,
    machine_id: machine.id,
    ...taken,
    image: machine.image,
    vcpus: machine.vcpus,
    memory_mib: machine.memory_mib,
    ready: machine.ready,
    hardware: recordedHardware(machine, settings),
    ...(slot === undefined
      ? {}
      : { source_runtime_host: slot.runtime_host, source_tap_device: slot.tap_device }),
    host: hostFacts(),
    vmm: { name, version, ...(memory_kind === "none" ? {} : { snapshot_format: vmms.snapshotFormat }) },
    ...(memory_kind === "none"
      ? {}
      : {
          guest: {
            hostname: identity.hostname,
            guest_machine_id: identity.guest_machine_id,
            ssh_host_public_key: identity.ssh_host_public_key,
            login_key: guests.loginKey(identity.guest_machine_id),
          },
        }),
    memory_kind,
  };
}
