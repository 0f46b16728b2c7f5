import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

/** A folder that nobody has any business with, and how to tell that nobody had. */
export class Canary implements Disposable {
  readonly path: string;
  /** What its files hold; it must not turn up anywhere else. */
  readonly secret = `secret-${randomBytes(16).toString("hex")}`;
  readonly #before: string;

  constructor() {
    this.path = mkdtempSync("/var/tmp/ch-canary-");
    mkdirSync(join(this.path, "inner"));
    // Long enough to be taken for a log, and of the kind that a kernel is taken for.
    for (const file of ["secret", "inner/secret", "inner/disk.img", "inner/api.sock"])
      writeFileSync(join(this.path, file), `\x7fELF${this.secret}\n`.repeat(100), { mode: 0o600 });
    // Older than its change: the next read shows, on a filesystem that notes reads now and then only, too.
    for (const file of this.#names()) utimesSync(file, 1, 1000);
    this.#before = this.#look();
  }

  #names(): string[] {
    const below = readdirSync(this.path, { recursive: true, encoding: "utf8" });
    return [...below.map((name) => join(this.path, name)).sort(), this.path];
  }

  /** Everything but the bytes, which this must not read. */
  #look(): string {
    return JSON.stringify(
      this.#names().map((name) => {
        const stats = lstatSync(name);
        const { mode, uid, gid, size, nlink, ino, mtimeMs, ctimeMs } = stats;
        // Our own look lists the folders.
        const read = stats.isDirectory() ? undefined : stats.atimeMs;
        return { name, mode, uid, gid, size, nlink, ino, mtimeMs, ctimeMs, read };
      }),
      undefined,
      1,
    );
  }

  /** Nobody read, wrote, gave away, linked, added or removed anything. */
  assertUntouched(): void {
    assert.equal(this.#look(), this.#before);
  }

  /** That reads show here, so that `assertUntouched` means something; the last thing that is done with it. */
  assertReadsShow(): void {
    readFileSync(join(this.path, "secret"));
    assert.notEqual(this.#look(), this.#before, "this filesystem does not note reads");
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}
