import { accessSync, constants, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** What the kernel tells in /proc, /sys and /dev. Nothing here writes. */
export class HostFiles {
  readonly #root: string;

  /** `root` is where `/` is; tests bring a tree of their own. */
  constructor(root = "/") {
    this.#root = root;
  }

  /** The file's text without the line feed at its end; undefined when it cannot be read. */
  text(path: string): string | undefined {
    return orNothing(() => readFileSync(join(this.#root, path), "utf8").trimEnd());
  }

  /** Names in a folder, sorted; none when it is not there. */
  list(path: string): readonly string[] {
    return orNothing(() => readdirSync(join(this.#root, path)).sort()) ?? [];
  }

  /** What tells a file from all others, whatever its name is; undefined when there is none. */
  identity(path: string): string | undefined {
    return orNothing(() => {
      const { dev, ino } = statSync(join(this.#root, path));
      return `${dev}:${ino}`;
    });
  }

  exists(path: string): boolean {
    return existsSync(join(this.#root, path));
  }

  /** True when this process may read and write it. */
  opens(path: string): boolean {
    return (
      orNothing(() => {
        accessSync(join(this.#root, path), constants.R_OK | constants.W_OK);
        return true;
      }) ?? false
    );
  }
}

function orNothing<Value>(look: () => Value): Value | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
