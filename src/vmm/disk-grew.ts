import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { AppError } from "../contract/errors.ts";
import type { FirecrackerApi } from "./api.ts";
import { SYSTEM_DISK } from "./devices.ts";

const configOfVm = Compile(
  Type.Object({
    drives: Type.Array(Type.Object({ drive_id: Type.String(), path_on_host: Type.String() })),
  }),
);

/**
 * Lets the VMM look at the size of its system disk again, which it does when it is given the disk's path anew. The VMM is
 * asked for that path: whoever took it over from a former daemon, or loaded it, was never told. Throws as
 * `FirecrackerApi.send`.
 */
export async function tellDiskGrew(api: FirecrackerApi, timeoutMs: number): Promise<void> {
  const config = await api.send({ method: "GET", path: "/vm/config", timeoutMs });
  const disk = configOfVm.Check(config)
    ? config.drives.find(({ drive_id }) => drive_id === SYSTEM_DISK)
    : undefined;
  if (disk === undefined)
    throw new AppError("vmm_failed", "The VMM's answer to GET /vm/config names no system disk.");
  const body = { drive_id: SYSTEM_DISK, path_on_host: disk.path_on_host };
  await api.send({ method: "PATCH", path: `/drives/${SYSTEM_DISK}`, body, timeoutMs });
}
