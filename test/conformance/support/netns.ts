import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";

/** A network namespace with no way out, gone with everything in it when its scope ends. */
export class NetworkNamespace implements Disposable {
  readonly name = `fcconf-${randomBytes(4).toString("hex")}`;

  constructor() {
    execFileSync("ip", ["netns", "add", this.name]);
  }

  get path(): string {
    return `/run/netns/${this.name}`;
  }

  /** Runs `ip` inside and returns what it printed. */
  ip(...args: string[]): string {
    return execFileSync("ip", ["-n", this.name, ...args], { encoding: "utf8" });
  }

  /** A persistent tap that `uid` may open. */
  addTap(name: string, uid = 0): void {
    this.ip("tuntap", "add", "dev", name, "mode", "tap", "user", String(uid));
    this.ip("link", "set", name, "up");
  }

  [Symbol.dispose](): void {
    execFileSync("ip", ["netns", "del", this.name]);
  }
}
