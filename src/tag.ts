import { createHash } from "node:crypto";

/** Six hex digits that mark everything which the daemon of this root, a real path, owns on the host. */
export function tagOf(rootDir: string): string {
  return createHash("sha256").update(rootDir).digest("hex").slice(0, 6);
}
