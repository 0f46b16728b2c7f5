import { AppError } from "../contract/errors.ts";
import { type MachineId, machineId } from "../contract/ids.ts";
import type { ForkMachine, GuestConfig, Ready, Restart } from "../contract/machine.ts";
import { keptRestart, requestDigest } from "./request-digest.ts";

/** What a fork is to make. */
export interface Family {
  /** In the order of their numbers. */
  readonly children: readonly MachineId[];
  readonly guest_config: GuestConfig;
  readonly ready: Ready;
  readonly restart: Restart | undefined;
  /** Of the whole request: each child's record has it. */
  readonly request_sha256: string;
}

/**
 * The children that a request names, which are ready as the source is where it does not say. Throws `bad_request`,
 * `contradiction`, naming the fields.
 */
export function familyOf(source: MachineId, request: ForkMachine, readyOfSource: Ready = "ssh"): Family {
  const children = childrenOf(request);
  if (children.includes(source)) {
    throw new AppError("contradiction", `machine ${source} would be a fork of itself`, {
      details: { machine_id: source },
    });
  }
  const { guest_config = {}, ready = readyOfSource } = request;
  const restart = keptRestart(request.restart);
  if (guest_config.hostname !== undefined && children.length > 1) {
    throw new AppError(
      "contradiction",
      "guest_config.hostname would be the name of all children: leave it out, and each has its own",
      { details: { fields: ["guest_config.hostname", "count"] } },
    );
  }
  const request_sha256 = requestDigest({ fork_of: source, children, guest_config, ready, restart });
  return { children, guest_config, ready, restart, request_sha256 };
}

function childrenOf({ machine_id, count, id_prefix }: ForkMachine): MachineId[] {
  if (machine_id !== undefined) {
    if (count === undefined && id_prefix === undefined) return [machineId(machine_id)];
    throw new AppError(
      "contradiction",
      "machine_id names one child, and count and id_prefix name several: give one or the other",
      { details: { fields: ["machine_id", "count", "id_prefix"] } },
    );
  }
  if (count === undefined || id_prefix === undefined) {
    const missing = count === undefined && id_prefix === undefined ? "machine_id" : undefined;
    const field = missing ?? (count === undefined ? "count" : "id_prefix");
    throw new AppError(
      "bad_request",
      "a fork wants machine_id for one child, or count and id_prefix for several",
      { details: { field } },
    );
  }
  return Array.from({ length: count }, (_, index) => machineId(`${id_prefix}${index + 1}`));
}
