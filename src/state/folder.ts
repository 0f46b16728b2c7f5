import { dirname, join } from "node:path";
import type { StateDisk, StateFile } from "./disk.ts";
import { type Document, EMPTY_DOCUMENT, encodeDocument } from "./document.ts";
import { encodeHead } from "./journal.ts";

/** The names in the state folder. */
export interface StatePaths {
  readonly dir: string;
  readonly document: string;
  readonly journal: string;
  /** The files before the last fold: together with `journal` they still hold everything. */
  readonly previousDocument: string;
  readonly previousJournal: string;
  /** A journal that an operator gave up: its being there allows a start without one. */
  readonly damagedJournal: string;
}

export function statePaths(dir: string): StatePaths {
  return {
    dir,
    document: join(dir, "state.json"),
    journal: join(dir, "journal"),
    previousDocument: join(dir, "state.json.previous"),
    previousJournal: join(dir, "journal.previous"),
    damagedJournal: join(dir, "journal.damaged"),
  };
}

/** The journal that commits are appended to. */
export interface OpenJournal {
  readonly file: StateFile;
  /** Where the next line goes, in bytes. */
  readonly length: number;
}

async function writeTemporary(disk: StateDisk, path: string, text: string): Promise<StateFile> {
  const file = await disk.open(path, "create");
  try {
    await file.write(Buffer.from(text), 0);
    await file.sync();
  } catch (error) {
    await file.close();
    await disk.remove(path);
    throw error;
  }
  return file;
}

/** Puts an empty journal that follows the commit `base` in place, and leaves it open. The name is not durable yet. */
export async function beginJournal(disk: StateDisk, paths: StatePaths, base: number): Promise<OpenJournal> {
  const temporary = `${paths.journal}.tmp`;
  const head = encodeHead(base);
  const file = await writeTemporary(disk, temporary, head);
  try {
    await disk.rename(temporary, paths.journal);
  } catch (error) {
    await file.close();
    throw error;
  }
  return { file, length: Buffer.byteLength(head) };
}

/** Replaces state.json, wholly or not at all, across power loss too. */
export async function replaceDocument(disk: StateDisk, paths: StatePaths, document: Document): Promise<void> {
  const temporary = `${paths.document}.tmp`;
  const file = await writeTemporary(disk, temporary, encodeDocument(document));
  await file.close();
  await disk.rename(temporary, paths.document);
  await disk.syncDirectory(paths.dir);
}

/**
 * Writes state.json anew and begins an empty journal behind it; the files that stood before stay as `*.previous`.
 * A crash after any step leaves files that fit: lines of a journal up to the number in state.json are passed over.
 * journal.previous is replaced only when state.json no longer needs it. The last name is not durable yet.
 */
export async function foldFiles(
  disk: StateDisk,
  paths: StatePaths,
  document: Document,
): Promise<OpenJournal> {
  await disk.remove(paths.previousDocument);
  await disk.link(paths.document, paths.previousDocument);
  await replaceDocument(disk, paths, document);
  await disk.remove(paths.previousJournal);
  await disk.link(paths.journal, paths.previousJournal);
  return beginJournal(disk, paths, document.seq);
}

/** Makes the first files of an empty state. The journal comes first: a state.json is never without one. */
export async function makeFirstFiles(disk: StateDisk, paths: StatePaths): Promise<OpenJournal> {
  const journal = await beginJournal(disk, paths, 0);
  await disk.syncDirectory(paths.dir);
  await replaceDocument(disk, paths, EMPTY_DOCUMENT);
  await disk.syncDirectory(dirname(paths.dir));
  return journal;
}
