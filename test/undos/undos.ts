/** Finds where undos are written in the source, so that none of them is listed by hand. */
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

const REPOSITORY = join(import.meta.dirname, "../..");

/** The rooms that change something on the host, and the one above them. */
const ROOMS = "src/{host,network,storage,vmm}/**/*.ts";

/** A function that `switch.ts` puts there: it notes that the undo was come to, does nothing, and returns what it was given. */
const OFF = "globalThis.undoIsOff(";

/** One undo, at a place in the source. */
export interface Undo {
  /** `src/…/file.ts:line`. */
  readonly place: string;
  readonly room: string;
  readonly path: string;
  /** The text that registers it or is its beginning, from `start` to `end` in the file, and what switches it off. */
  readonly start: number;
  readonly end: number;
  readonly off: string;
}

/**
 * How undos are written, each with what it becomes when it is off: a stack's `push` and `defer` take what is to be done
 * back, and `use` what is to be disposed; a function named `undo…` takes back what another run left.
 * Lines stay where they are.
 */
const SHAPES: readonly { readonly pattern: RegExp; readonly off: (found: string) => string }[] = [
  { pattern: /(?<![\w.#])(?:\w+\.)*undo\.push\(/g, off: () => OFF },
  { pattern: /(?<![\w.#])(?:\w+\.)*\w+\.defer\(/g, off: () => OFF },
  { pattern: /(?<![\w.#])(?:\w+\.)*undo\.use\(/g, off: () => OFF },
  {
    pattern: /\bfunction undo[A-Z]\w*\([^{}]*(?:\{[^{}]*\}[^{}]*)*?\): Promise<void> \{/g,
    off: (found) => `${found} ${OFF}); return;`,
  },
];

/** Each spelling that begins an undo; one that no shape above covers would be missed in silence. */
const SPELLINGS = /\bundo\.(?:push|use|adopt|defer)\(|\.defer\(|\bfunction undo[A-Z]/g;

/** The undos of all rooms, in the order of the files and lines. Throws where one is written in an unknown way. */
export function findUndos(): readonly Undo[] {
  return globSync(ROOMS, { cwd: REPOSITORY })
    .sort()
    .flatMap((path) => undosOf(path, readFileSync(join(REPOSITORY, path), "utf8")));
}

/** The undos in the text of one file, whose path is relative to the repository. */
export function undosOf(path: string, text: string): readonly Undo[] {
  const found = SHAPES.flatMap(({ pattern, off }) =>
    [...text.matchAll(pattern)].map((match) => ({
      place: `${path}:${text.slice(0, match.index).split("\n").length}`,
      room: path.split("/")[1] ?? "",
      path,
      start: match.index,
      end: match.index + match[0].length,
      off: off(match[0]),
    })),
  ).sort((a, b) => a.start - b.start);
  const spelled = [...text.matchAll(SPELLINGS)].length;
  if (spelled !== found.length)
    throw new Error(`${path}: ${spelled} undos are spelled and ${found.length} of them can be switched off`);
  const stacks = [
    ...text.matchAll(/withUndo\([^()]*(?:\([^()]*\))?[^()]*\basync \((\w+)\)|new UndoStack\(/g),
  ];
  for (const [, name] of stacks)
    if (name !== undefined && name !== "undo")
      throw new Error(`${path}: the undos are called ${name}, and looked for as "undo"`);
  return found;
}

/** The text with the undo switched off. */
export function without(text: string, { start, end, off }: Undo): string {
  return text.slice(0, start) + off + text.slice(end);
}
