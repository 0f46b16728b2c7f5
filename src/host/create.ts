import { AppError } from "../contract/errors.ts";
import { machineId } from "../contract/ids.ts";
import type { CreateMachine } from "../contract/machine.ts";
import type { MachineRecord } from "../model/records.ts";
import { bringUp } from "./bring-up.ts";
import type { HostContext } from "./context.ts";
import { creation } from "./creation.ts";
import { hardwareOf, optionsOf } from "./hardware.ts";
import { refuseWithoutHugePages } from "./huge-pages.ts";
import { keptRestart, requestDigest } from "./request-digest.ts";
import type { Trace } from "./trace.ts";
import { refuseSmallDisk } from "./way-up.ts";

export interface Created {
  readonly record: MachineRecord;
  /** False when the machine was there already, made by the same request. */
  readonly created: boolean;
}

const DEFAULT_VCPUS = 1;
const DEFAULT_MEMORY_MIB = 512;

/** POST /machines: a machine from an image. Idempotent for the same body. Throws `AppError`. */
export async function createMachine(
  context: HostContext,
  request: CreateMachine,
  trace: Trace,
): Promise<Created> {
  const { storage, settings, admission } = context;
  if (request.artifact !== undefined && request.image !== undefined) {
    throw new AppError(
      "contradiction",
      "artifact and image are two answers to one question: give one of them",
      {
        details: { fields: ["artifact", "image"] },
      },
    );
  }
  if (request.user_volume_ids !== undefined && request.user_volume_ids.length > 0) {
    throw new AppError("not_supported", "user volumes do not exist yet: user_volume_ids must be empty", {
      details: { field: "user_volume_ids" },
    });
  }
  const id = machineId(request.machine_id);
  const { artifact } = request;
  const wanted = {
    ...(artifact === undefined ? { image: request.image ?? settings.defaultImage } : { artifact }),
    vcpus: request.vcpus ?? DEFAULT_VCPUS,
    memory_mib: request.memory_mib ?? DEFAULT_MEMORY_MIB,
    storage_bytes: request.storage_bytes,
    guest_config: request.guest_config ?? {},
    ready: request.ready ?? "ssh",
  };
  const hardware = hardwareOf(request, wanted, settings);
  const request_sha256 = requestDigest({
    machine_id: id,
    ...wanted,
    ...optionsOf(request),
    restart: keptRestart(request.restart),
  });
  return await creation(context, id, request_sha256, async (signal) => {
    // Nothing is fetched for a machine that there is no room for.
    admission.refuseTooMuch(wanted.memory_mib);
    await refuseWithoutHugePages(hardware, wanted.memory_mib);
    const image = await trace.step("image", () =>
      artifact === undefined
        ? storage.localImage(request.image ?? settings.defaultImage, signal)
        : storage.fetchImage(artifact, signal),
    );
    refuseSmallDisk(wanted.storage_bytes, image.rootfs_size_bytes);
    return await bringUp(
      context,
      { operation: "create", id, request_sha256, ...wanted, hardware, image, restart: request.restart },
      trace,
      signal,
    );
  });
}
