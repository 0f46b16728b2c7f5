import { AppError } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { giveBack } from "./give-back.ts";
import { refuseSetAside } from "./in-use.ts";
import { operationId } from "./operation-id.ts";
import type { Trace } from "./trace.ts";

/** DELETE /machines/{id}: idempotent. A create or start of this id that is under way is ended and undone first. */
export async function deleteMachine(context: HostContext, id: MachineId, trace: Trace): Promise<void> {
  context.creations.end(
    new AppError("operation_cancelled", `machine ${id} was deleted while it was coming up`),
    id,
  );
  using _lock = await context.machineLocks.acquire(id);
  const { state, clock } = context;
  if (!state.state.machines.has(id)) return refuseSetAside(state, "machine", id);
  const operation: OperationRecord = {
    id: operationId("delete", id),
    kind: "delete",
    machine_id: id,
    started_at: clock.now(),
  };
  await trace.step("intent", () => state.commit({ put: "operation", record: operation }));
  await finishDelete(context, id, trace);
}

/** The part of a delete that only goes forward: also what recovery runs. The caller holds the machine's lock. */
export async function finishDelete(context: HostContext, id: MachineId, trace: Trace): Promise<void> {
  const { state, network, storage, vmms } = context;
  const record = state.state.machines.get(id);
  const vmm = record?.vmm;
  const place = record?.slot === undefined ? undefined : network.slot(record.slot.index);
  if (place !== undefined && vmm !== undefined)
    await trace.step("jail", () => vmms.release({ ...vmm, netns_path: place.netns_path }));
  await trace.step("files", () => storage.removeMachine(id));
  const stale = [...state.state.operations.values()].filter((operation) => operation.machine_id === id);
  await trace.step("done", () =>
    state.commit(
      { drop: "machine", id },
      ...stale.map((operation) => ({ drop: "operation", id: operation.id }) as const),
    ),
  );
  await giveBack(context, id, place, trace);
}
