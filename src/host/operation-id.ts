import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { OperationRecord } from "../model/records.ts";

/** The name of an operation's record: one of a kind at a time on a machine or a snapshot. */
export function operationId(kind: OperationRecord["kind"], subject: MachineId | SnapshotId): string {
  return `${kind}:${subject}`;
}
