import { join } from "node:path";
import type { MachineId, SnapshotId } from "../contract/ids.ts";

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

  machine(id: MachineId): { folder: string; disk: string; seed: string; console: string; vmmLog: string } {
    const folder = join(this.machines, id);
    return {
      folder,
      disk: join(folder, "disk.img"),
      seed: join(folder, "seed.img"),
      console: join(folder, "console.log"),
      vmmLog: join(folder, "vmm.log"),
    };
  }

  snapshot(id: SnapshotId): { folder: string; disk: string; manifest: string } {
    return snapshotIn(join(this.snapshots, id));
  }

  stagedSnapshot(id: SnapshotId): { folder: string; disk: string; manifest: string } {
    return snapshotIn(join(this.staging, `snapshot-${id}`));
  }
}

function snapshotIn(folder: string): { folder: string; disk: string; manifest: string } {
  return { folder, disk: join(folder, "disk.img"), manifest: join(folder, "manifest.json") };
}
