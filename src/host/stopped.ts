import { AppError } from "../contract/errors.ts";
import type { MachineRecord } from "../model/records.ts";

/**
 * Refuses (`wrong_phase`) what is for machines that stand still and have their disk: stopped ones, and those that failed
 * while they ran. One that failed on its way up still holds a jail, and who knows what of its disk.
 */
export function refuseUnlessStopped({ id, phase, vmm }: MachineRecord, wanted: string): void {
  if (phase === "stopped" || (phase === "failed" && vmm === undefined)) return;
  const reason =
    phase === "running"
      ? `machine ${id} is running; only a stopped one can be ${wanted}`
      : `machine ${id} did not come up, and that could not be undone wholly; delete it`;
  throw new AppError("wrong_phase", reason, { details: { phase } });
}
