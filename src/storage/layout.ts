import { join } from "node:path";
import type { MachineId, SnapshotId } from "../contract/ids.ts";
import type { ArtifactKind } from "../contract/snapshot.ts";

/** Where everything lies under the daemon's root. All folders are root's, mode 0700. */
export class Layout {
  readonly root: string;
  /** Files named by their SHA-256, 0444: kernels, initrds, root disks. */
  readonly images: string;
  /** Small JSON files: what was learned about a name, a URL or a pair of files, so that it need not be learned again. */
  readonly index: string;
  readonly machines: string;
  readonly snapshots: string;
  /** Half-made files; emptied at start. */
  readonly staging: string;
  /** Files that are being deleted; emptied at start. */
  readonly trash: string;

  constructor(root: string) {
    this.root = root;
    this.images = join(root, "images");
    this.index = join(this.images, "index");
    this.machines = join(root, "machines");
    this.snapshots = join(root, "snapshots");
    this.staging = join(root, "staging");
    this.trash = join(root, "trash");
  }

  /** Every folder, parents first. */
  get folders(): readonly string[] {
    return [this.images, this.index, this.machines, this.snapshots, this.staging, this.trash];
  }

  machine(id: MachineId): MachinePaths {
    const folder = join(this.machines, id);
    return {
      folder,
      disk: join(folder, "disk.img"),
      seed: join(folder, "seed.img"),
      console: join(folder, "console.log"),
      vmmLog: join(folder, "vmm.log"),
      metrics: join(folder, "metrics.jsonl"),
      memoryBase: join(folder, "memory-base.img"),
    };
  }

  snapshot(id: SnapshotId): SnapshotPaths {
    return snapshotIn(join(this.snapshots, id));
  }

  stagedSnapshot(id: SnapshotId): SnapshotPaths {
    return snapshotIn(join(this.staging, `snapshot-${id}`));
  }
}

export interface MachinePaths {
  readonly folder: string;
  readonly disk: string;
  readonly seed: string;
  readonly console: string;
  readonly vmmLog: string;
  readonly metrics: string;
  /** The memory of a sealed snapshot, on which the next diff stands. */
  readonly memoryBase: string;
}

/** Names of a snapshot's files in its folder, which are those that the manifest and the artifacts have. */
export const FILE_NAMES = {
  disk: "disk.img",
  memory: "memory.img",
  vmstate: "vmstate.bin",
  manifest: "manifest.json",
} as const satisfies Record<ArtifactKind, string>;

export interface SnapshotPaths extends Readonly<Record<ArtifactKind, string>> {
  readonly folder: string;
  /** What is known of the files since they were last read: see snapshot-proof.ts. */
  readonly proof: string;
}

function snapshotIn(folder: string): SnapshotPaths {
  return {
    folder,
    disk: join(folder, FILE_NAMES.disk),
    memory: join(folder, FILE_NAMES.memory),
    vmstate: join(folder, FILE_NAMES.vmstate),
    manifest: join(folder, FILE_NAMES.manifest),
    proof: join(folder, "proof.json"),
  };
}
