import type { World } from "./world.ts";

export interface FarArtifact {
  readonly id: string;
  readonly kind: string;
  readonly name: string;
  readonly size_bytes: number;
  readonly sha256_hex: string;
}

/** A plan that sends each artifact of a snapshot to a part store in parts of at most `partBytes`. */
export function uploadPlan(
  artifacts: readonly FarArtifact[],
  store: string,
  partBytes: number,
): { artifacts: object[] } {
  return {
    artifacts: artifacts.map(({ id, size_bytes }) => ({
      artifact_id: id,
      object_key: `snapshots/${id}`,
      upload_id: `upload-${id}`,
      parts: Array.from({ length: Math.max(1, Math.ceil(size_bytes / partBytes)) }, (_, index) => ({
        part_number: index + 1,
        offset_bytes: index * partBytes,
        size_bytes: Math.min(partBytes, size_bytes - index * partBytes),
        upload_url: `${store}/parts/${id}/${index + 1}?X-Amz-Signature=secret`,
      })),
    })),
  };
}

/** A snapshot of another daemon as a restore names it, its artifacts to be had at the store. */
export async function describeFar(world: World, snapshot: string, store: string): Promise<object> {
  const { snapshot: found } = (await world.get(`/snapshots/${snapshot}`)).body;
  return {
    snapshot_id: found.id,
    machine_id: found.machine_id,
    image_id: "debian-slim",
    source_runtime_host: found.source_runtime_host,
    source_tap_device: found.source_tap_device,
    artifacts: (found.artifacts as FarArtifact[]).map(({ id, kind, name, size_bytes, sha256_hex }) => ({
      id,
      kind,
      name,
      size_bytes,
      sha256_hex,
      object_key: `snapshots/${id}`,
      download_url: `${store}/objects/${id}?X-Amz-Signature=secret`,
    })),
  };
}
