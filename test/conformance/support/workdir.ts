import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * A folder that goes when its scope ends. Its path is short: a Unix socket's may have 107 bytes.
 * KEEP=1 leaves it for a look at the wreck.
 */
export class WorkDir implements Disposable {
  readonly path: string;

  constructor() {
    this.path = mkdtempSync(join(tmpdir(), "fc-"));
  }

  file(...names: string[]): string {
    return join(this.path, ...names);
  }

  [Symbol.dispose](): void {
    if (process.env["KEEP"] === "1") return;
    refuseIfMounted(this.path);
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A jail may have the system's folders bound into it: never remove a tree that something is mounted in. */
function refuseIfMounted(path: string): void {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((point) => point === path || point.startsWith(`${path}/`));
  if (mounts.length > 0) throw new Error(`still mounted on the host: ${mounts.join(", ")}`);
}
