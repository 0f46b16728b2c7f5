import { messageOf } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";
import type { StateDisk } from "./disk.ts";
import { EMPTY_DOCUMENT, UnreadableError, decodeDocument } from "./document.ts";
import {
  type OpenJournal,
  type StatePaths,
  beginJournal,
  makeFirstFiles,
  replaceDocument,
} from "./folder.ts";
import { type Journal, type JournalLine, decodeJournal } from "./journal.ts";
import { Records } from "./records.ts";

/** The state as the files say it, and the journal to go on with. */
export interface Recovered {
  readonly records: Records;
  /** Number of the last commit. */
  readonly seq: number;
  readonly journal: OpenJournal;
  /** Lines that the journal holds beyond state.json. */
  readonly lines: number;
  /** True when journal.previous was needed: state.json should be written anew at once. */
  readonly foldNow: boolean;
}

function refusal(paths: StatePaths, what: string, cause?: unknown): Error {
  const advice =
    `Nothing was changed. If state.json is the bad file, copy ${paths.previousDocument} over it: with the journals ` +
    `nothing is lost. If a journal is bad, rename it to ${paths.damagedJournal} to go on with what state.json holds. ` +
    `Or put back a backup of ${paths.dir}, or move that folder away to start with nothing.`;
  return new Error(`The state cannot be used: ${what}. ${advice}`, cause === undefined ? {} : { cause });
}

async function readAs<T>(
  disk: StateDisk,
  paths: StatePaths,
  path: string,
  decode: (bytes: Uint8Array) => T,
): Promise<T | undefined> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await disk.read(path);
    return bytes === undefined ? undefined : decode(bytes);
  } catch (error) {
    const problem = error instanceof UnreadableError ? error.message : `cannot be read (${messageOf(error)})`;
    throw refusal(paths, `${path} ${problem}`, error);
  }
}

/** The lines after `from` of the journals, without a gap up to the journal's end. */
async function linesAfter(
  disk: StateDisk,
  paths: StatePaths,
  from: number,
  journal: Journal,
): Promise<JournalLine[]> {
  const end = journal.base + journal.lines.length;
  if (end < from) {
    throw refusal(paths, `${paths.journal} ends at commit ${end} and state.json is at ${from}`);
  }
  const later = journal.lines.filter((line) => line.seq > from);
  if (journal.base <= from) return later;
  const previous = await readAs(disk, paths, paths.previousJournal, decodeJournal);
  const bridge = previous?.lines.filter((line) => line.seq > from && line.seq <= journal.base) ?? [];
  if (bridge.length !== journal.base - from) {
    throw refusal(paths, `commits ${from + 1} to ${journal.base} are in neither state.json nor a journal`);
  }
  return [...bridge, ...later];
}

async function continueJournal(
  disk: StateDisk,
  paths: StatePaths,
  journal: Journal,
  log: Log,
): Promise<OpenJournal> {
  const file = await disk.open(paths.journal, "open");
  if (journal.tornBytes > 0) {
    log.warn(
      { path: paths.journal, bytes: journal.tornBytes },
      "the last line of the journal was cut off before it was acknowledged: it is dropped",
    );
    try {
      await file.truncate(journal.goodBytes);
      await file.datasync();
    } catch (error) {
      await file.close();
      throw error;
    }
  }
  return { file, length: journal.goodBytes };
}

/**
 * Reads the state folder, or makes it when it is new. Throws a plain Error with a sentence for the operator when the
 * files cannot be trusted; they are left as they are then.
 */
export async function recover(disk: StateDisk, paths: StatePaths, log: Log): Promise<Recovered> {
  await disk.makeDirectory(paths.dir);
  const document = await readAs(disk, paths, paths.document, decodeDocument);
  const journal = await readAs(disk, paths, paths.journal, decodeJournal);
  const records = new Records();
  if (document === undefined && journal === undefined) {
    for (const path of [paths.previousDocument, paths.previousJournal]) {
      if ((await disk.read(path)) !== undefined) {
        throw refusal(paths, `${paths.document} and its journal are missing, but ${path} is there`);
      }
    }
    return { records, seq: 0, journal: await makeFirstFiles(disk, paths), lines: 0, foldNow: false };
  }
  if (journal === undefined) {
    if (document === undefined || (await disk.read(paths.damagedJournal)) === undefined) {
      throw refusal(paths, `${paths.journal} is missing`);
    }
    log.warn({ seq: document.seq }, "the journal was given up: going on with what state.json holds");
    records.load(document.records);
    const begun = await beginJournal(disk, paths, document.seq);
    await disk.syncDirectory(paths.dir);
    return { records, seq: document.seq, journal: begun, lines: 0, foldNow: false };
  }
  if (document === undefined) {
    // A journal from the first commit on holds everything: the first start ended between its two files.
    if (journal.base !== 0) throw refusal(paths, `${paths.document} is missing`);
    await replaceDocument(disk, paths, EMPTY_DOCUMENT);
  }
  const { seq, records: raw } = document ?? EMPTY_DOCUMENT;
  const lines = await linesAfter(disk, paths, seq, journal);
  records.load(raw);
  for (const line of lines) for (const change of line.changes) records.replay(change);
  return {
    records,
    seq: journal.base + journal.lines.length,
    journal: await continueJournal(disk, paths, journal, log),
    lines: lines.length,
    foldNow: journal.base > seq,
  };
}
