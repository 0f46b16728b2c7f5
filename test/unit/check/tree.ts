import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Finding } from "../../../src/check/finding.ts";
import { HostFiles } from "../../../src/check/host-files.ts";

/** A host made of these files. A content of `-> target` makes a symbolic link. */
export function hostOf(content: Readonly<Record<string, string>>): HostFiles & Disposable {
  const root = mkdtempSync(join(tmpdir(), "check-"));
  for (const [path, text] of Object.entries(content)) {
    const place = join(root, path);
    mkdirSync(dirname(place), { recursive: true });
    if (text.startsWith("-> ")) symlinkSync(text.slice(3), place);
    else writeFileSync(place, text);
  }
  return Object.assign(new HostFiles(root), {
    [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }),
  });
}

/** What `look` finds on a host of these files, as `level what` or, where it is no ok, as `level what: text`. */
export function found(
  content: Readonly<Record<string, string>>,
  look: (files: HostFiles) => readonly Finding[],
): string[] {
  using files = hostOf(content);
  return look(files).map(({ level, what, text }) =>
    level === "ok" ? `ok ${what}` : `${level} ${what}: ${text}`,
  );
}

/** Asserts nothing; picks the findings about one thing. */
export function about(what: string, lines: readonly string[]): string[] {
  return lines.filter((line) => line.slice(line.indexOf(" ") + 1).split(":")[0] === what);
}
