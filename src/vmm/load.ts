import type { FirecrackerApi } from "./api.ts";
import { NETWORK_INTERFACE, serial } from "./devices.ts";
import type { FrozenGuest } from "./types.ts";
import type { Version } from "./version.ts";

const CONFIGURE_TIMEOUT_MS = 10_000;
/** Memory is mapped, not read; a VMM that does read it needs long for a large guest on a slow disk. */
const LOAD_TIMEOUT_MS = 120_000;

/**
 * Loads a frozen guest and leaves it paused. Console and metadata are given before: a snapshot keeps neither, and
 * anything else that is configured before makes the VMM refuse the load. Throws as `FirecrackerApi.send`; a VMM whose
 * load failed ends itself.
 */
export async function loadGuest(
  api: FirecrackerApi,
  version: Version,
  frozen: FrozenGuest,
  signal?: AbortSignal,
): Promise<void> {
  const put = async (path: string, body: object, timeoutMs = CONFIGURE_TIMEOUT_MS): Promise<void> => {
    await api.send({ method: "PUT", path, body, timeoutMs, signal });
  };
  await put("/serial", serial(version, frozen.console_path));
  await put("/mmds", frozen.metadata);
  await put(
    "/snapshot/load",
    {
      snapshot_path: frozen.state_path,
      mem_backend: { backend_type: "File", backend_path: frozen.memory_path },
      track_dirty_pages: frozen.track_dirty_pages,
      resume_vm: false,
      network_overrides: [{ iface_id: NETWORK_INTERFACE, host_dev_name: frozen.tap_device }],
    },
    LOAD_TIMEOUT_MS,
  );
}
