import type { OperationRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";
import { finishDelete } from "./delete.ts";
import { finishDeleteSnapshot } from "./delete-snapshot.ts";
import { undoFetch } from "./fetch-snapshot.ts";
import { undoFork } from "./fork.ts";
import { holdAsRecorded } from "./pause.ts";
import { finishResize } from "./resize.ts";
import { undoSnapshot } from "./snapshot.ts";
import { undoStart } from "./start.ts";
import { finishStop } from "./stop.ts";
import { Trace } from "./trace.ts";

/**
 * Finishes or undoes an operation that was cut off, or that could not be undone wholly when it failed. Says which way it
 * went. The caller holds the locks of its machines and its snapshot, unless nobody else is there yet.
 */
export async function takeUp(context: HostContext, operation: OperationRecord): Promise<"forward" | "back"> {
  const { state } = context;
  const trace = new Trace(context.log);
  const { machine_id, snapshot_id } = operation;
  switch (operation.kind) {
    case "create":
    case "restore":
      // The client got no answer: the machine was never there.
      if (machine_id !== undefined) await finishDelete(context, machine_id, trace);
      return "back";
    case "start": {
      const machine = machine_id === undefined ? undefined : state.state.machines.get(machine_id);
      if (machine === undefined) await state.commit({ drop: "operation", id: operation.id });
      else await undoStart(context, machine, operation, trace);
      return "back";
    }
    case "pause":
    case "resume":
      if (machine_id !== undefined) await holdAsRecorded(context, machine_id);
      await state.commit({ drop: "operation", id: operation.id });
      return "back";
    case "resize": {
      const machine = machine_id === undefined ? undefined : state.state.machines.get(machine_id);
      const withVmm = machine !== undefined && context.live.has(machine.id);
      if (machine === undefined || (machine.vmm !== undefined && !withVmm))
        await state.commit({ drop: "operation", id: operation.id });
      else await finishResize(context, machine, operation, trace);
      return "forward";
    }
    case "delete":
      if (machine_id !== undefined) await finishDelete(context, machine_id, trace);
      return "forward";
    case "stop": {
      const machine = machine_id === undefined ? undefined : state.state.machines.get(machine_id);
      if (machine?.phase === "running") await finishStop(context, machine, operation, trace, false);
      else await state.commit({ drop: "operation", id: operation.id });
      return "forward";
    }
    case "snapshot":
      await undoSnapshot(context, operation);
      return "back";
    case "fork":
      await undoFork(context, operation, trace);
      return "back";
    case "fetch-snapshot":
      await undoFetch(context, operation, trace);
      return "back";
    case "delete-snapshot":
      if (snapshot_id !== undefined) await finishDeleteSnapshot(context, snapshot_id, operation, trace);
      return "forward";
  }
}
