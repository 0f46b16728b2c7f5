import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { waitFor } from "./wait.ts";

const SOURCE = fileURLToPath(new URL("../../fixtures/tiny-guest/", import.meta.url));

/** What the guest does after its first lines; see test/fixtures/tiny-guest/guest.c. */
export type TinyGuestMode = "count" | "dirty" | "idle" | "reset" | "triple";

/**
 * The path of the guest's kernel, built outside the checkout and kept under the digest of its sources.
 * Files of the test runner's other processes may build it at the same time: the rename decides.
 */
export function tinyGuest(): string {
  const digest = createHash("sha256");
  for (const name of readdirSync(SOURCE).sort()) digest.update(name).update(readFileSync(join(SOURCE, name)));
  const built = join(tmpdir(), `tiny-guest-${digest.digest("hex").slice(0, 16)}`);
  if (!existsSync(built)) {
    const out = mkdtempSync(join(tmpdir(), "tiny-guest-build-"));
    execFileSync("make", ["--silent", "-C", SOURCE, `OUT=${out}`], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    try {
      renameSync(out, built);
    } catch (error) {
      if (!existsSync(built)) throw error;
    }
  }
  return join(built, "tiny-guest.elf");
}

/** The console that a guest writes to a file. */
export class Console {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  text(): string {
    try {
      return readFileSync(this.#path, "utf8");
    } catch {
      return "";
    }
  }

  /** The last whole "tick N", or -1. */
  lastTick(): number {
    const ticks = [...this.text().matchAll(/tick (\d+)\r?\n/g)];
    return Number(ticks.at(-1)?.[1] ?? -1);
  }

  /** The rest of the line that starts with `name: `. */
  fact(name: string): string {
    const value = new RegExp(`^${name}: (.*)$`, "m").exec(this.text())?.[1];
    if (value === undefined) throw new Error(`the guest did not say its ${name}: ${this.text()}`);
    return value;
  }

  async waitForText(text: string, timeoutMs = 20_000): Promise<void> {
    await waitFor(
      () => `"${text}" on the console; it shows: ${this.text().slice(-2_000)}`,
      () => this.text().includes(text),
      timeoutMs,
    );
  }

  async waitForTick(tick: number): Promise<void> {
    await waitFor(
      () => `tick ${tick} on the console; it shows: ${this.text().slice(-500)}`,
      () => this.lastTick() >= tick,
    );
  }
}
