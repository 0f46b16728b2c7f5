import { randomUUID } from "node:crypto";
import { AppError } from "../contract/errors.ts";
import { type MachineId, type SnapshotId, snapshotId } from "../contract/ids.ts";
import type { ForkMachine } from "../contract/machine.ts";
import type { Manifest } from "../model/manifest.ts";
import type { MachineRecord, OperationRecord } from "../model/records.ts";
import { type MachinePlan, prepare, raise, undoRecord } from "./bring-up.ts";
import type { HostContext } from "./context.ts";
import { finishDelete } from "./delete.ts";
import { type Family, familyOf } from "./fork-request.ts";
import { recordedHardware } from "./hardware.ts";
import { setAsideReason } from "./in-use.ts";
import { acquireAll } from "./locks.ts";
import { operationId } from "./operation-id.ts";
import { holdAsRecorded } from "./pause.ts";
import { announce } from "./run-guest.ts";
import { manifestOf, refuseUnsavable, save, voidMemoryBase } from "./saving.ts";
import { Siblings } from "./siblings.ts";
import { withNewBase } from "./snapshot.ts";
import type { Trace } from "./trace.ts";
import { type UndoStack, withUndo } from "./undo.ts";

export interface Forked {
  /** The children, in the order of their numbers. */
  readonly records: readonly MachineRecord[];
  /** False when all of them were there already, made by the same request. */
  readonly created: boolean;
}

/**
 * POST /machines/{id}/fork: machines that go on where this one stands, all of them or none. A snapshot that nobody else
 * sees is taken of it, it goes on at once, and the children wake from that. Idempotent for the same body. A delete of a
 * child ends the fork; the source is held until it is over. Throws `AppError`.
 */
export async function forkMachine(
  context: HostContext,
  id: MachineId,
  request: ForkMachine,
  trace: Trace,
): Promise<Forked> {
  // That does not change while the machine is there: it need not be held for this.
  const family = familyOf(id, request, context.state.state.machines.get(id)?.ready);
  // Entered before its turn comes, as every machine that is made: a delete ends all that were asked for before it.
  using entered = new DisposableStack();
  const signal = AbortSignal.any(
    family.children.map((child) => entered.use(context.creations.enter(child)).signal),
  );
  using _locks = await acquireAll(context.machineLocks, [id, ...family.children], signal);
  signal.throwIfAborted();
  const there = alreadyThere(context, family);
  if (there !== undefined) return { records: there, created: false };
  const source = context.state.state.machines.get(id);
  if (source === undefined) throw new AppError("machine_not_found", `there is no machine ${id}`);
  refuseUnsavable(context, source, "full");
  return { records: await makeFamily(context, source, family, { trace, signal }), created: true };
}

/** The children, when all are there and of this request. Throws `machine_exists` when some are, or others. */
function alreadyThere(
  { state }: HostContext,
  { children, request_sha256 }: Family,
): MachineRecord[] | undefined {
  const records = children.flatMap((child) => state.state.machines.get(child) ?? []);
  const same = records.filter((record) => record.request_sha256 === request_sha256);
  if (same.length === children.length) return records;
  const unreadable = children.filter((child) => setAsideReason(state, "machine", child) !== undefined);
  const taken = [...records.map((record) => record.id), ...unreadable];
  if (taken.length === 0) return undefined;
  throw new AppError(
    "machine_exists",
    `a fork makes all of its children, and there are machines with these ids: ${taken.join(", ")}`,
    { details: { machine_ids: taken } },
  );
}

interface Course {
  readonly trace: Trace;
  readonly signal: AbortSignal;
}

async function makeFamily(
  context: HostContext,
  source: MachineRecord,
  { children, ...wanted }: Family,
  { trace, signal }: Course,
): Promise<MachineRecord[]> {
  const { state, storage, clock } = context;
  const hidden = snapshotId(`fork-${randomUUID()}`);
  const plan = {
    operation: "fork",
    ...wanted,
    image: source.image,
    snapshot_id: hidden,
    vcpus: source.vcpus,
    memory_mib: source.memory_mib,
    storage_bytes: undefined,
    hardware: recordedHardware(source, context.settings),
  } as const satisfies Omit<MachinePlan, "id">;
  const operation: OperationRecord = {
    id: operationId("fork", source.id),
    kind: "fork",
    machine_id: source.id,
    snapshot_id: hidden,
    children,
    started_at: clock.now(),
  };
  return await withUndo(trace.log, async (undo) => {
    reserveForAll(context, children, source.memory_mib, undo);
    undo.push("intent", async (failed) => {
      // It stays where something could not be undone: the next start takes that up.
      if (failed.length === 0 && state.state.operations.has(operation.id))
        await state.commit({ drop: "operation", id: operation.id });
    });
    const siblings = new Siblings(context, trace, signal);
    undo.push("children", (_failed, cause) => siblings.unwind(cause));
    const prepared = await trace.step("prepare", () =>
      siblings.each(children, async (id) => {
        const way = siblings.way();
        const child = await prepare(way, { ...plan, id });
        way.undo.push("record", async (failed, cause) => {
          if (state.state.machines.has(id)) await undoRecord(context, child, undefined, { failed, cause });
        });
        return { way, child };
      }),
    );
    await trace.step("intent", () =>
      state.commit(
        { put: "operation", record: operation },
        ...prepared.map(({ child }) => ({ put: "machine", record: child.record }) as const),
      ),
    );
    undo.push("files", () => storage.removeSnapshot(hidden));
    const frozen = await freeze(context, source, hidden, { undo, trace });
    const risen = await trace.step("children", () =>
      siblings.each(prepared, ({ way, child }) => raise(way, { ...child, plan: { ...child.plan, frozen } })),
    );
    // The jails hold what they need of it by links of their own.
    await trace.step("files", () => storage.removeSnapshot(hidden));
    signal.throwIfAborted();
    await announce(context, risen, operation, trace);
    return risen.map(({ record }) => record);
  });
}

/**
 * Promises its memory to each child before anything else is done: there is room for all of them, or nothing is touched.
 * Throws `host_full`.
 */
function reserveForAll(
  { admission, state }: HostContext,
  children: readonly MachineId[],
  memory_mib: number,
  undo: UndoStack,
): void {
  admission.refuseTooMuch(children.length * memory_mib);
  for (const child of children) admission.reserve(child, memory_mib);
  undo.push("memory", () => {
    // Of a child that could not be undone wholly it is its record's.
    for (const child of children) if (!state.state.machines.has(child)) admission.release(child);
  });
}

/** Freezes the source into the snapshot `hidden` and lets it go on. Returns what was written beside its files. */
async function freeze(
  context: HostContext,
  source: MachineRecord,
  hidden: SnapshotId,
  course: { readonly undo: UndoStack; readonly trace: Trace },
): Promise<Manifest> {
  const { state, storage, clock } = context;
  const { consistency } = await save(context, source, hidden, "full", course);
  const draft = manifestOf(context, source, hidden, "full", { consistency, created_at: clock.now() });
  await course.trace.step("seal", () => storage.finishSnapshot(hidden, draft));
  const saved = await withNewBase(context, source, hidden, "full");
  if (saved !== undefined) await state.commit({ put: "machine", record: saved });
  return await storage.readManifest(hidden);
}

/**
 * Takes back a fork that was cut off: what recovery runs, once running machines were taken over. Its children never ran
 * as far as the state knows; an id that somebody made anew since is not one of them.
 */
export async function undoFork(
  context: HostContext,
  { id, machine_id, snapshot_id, children = [] }: OperationRecord,
  trace: Trace,
): Promise<void> {
  const { state, storage } = context;
  if (machine_id !== undefined) {
    // The guest may still stand; and nobody knows whether its memory was saved, which made its base void.
    await holdAsRecorded(context, machine_id);
    await voidMemoryBase(context, machine_id);
  }
  for (const child of children) {
    const record = state.state.machines.get(child);
    if (record === undefined) continue;
    const { phase, vmm } = record;
    if (phase === "starting" || (phase === "failed" && vmm !== undefined))
      await finishDelete(context, child, trace);
  }
  if (snapshot_id !== undefined) await storage.removeSnapshot(snapshot_id);
  await state.commit({ drop: "operation", id });
}
