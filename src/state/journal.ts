import { checksumOf, jsonObject, strictText } from "./checksum.ts";
import { FORMAT, UnreadableError } from "./document.ts";
import type { RawChange } from "./records.ts";
import type { RecordKind } from "./types.ts";

/** One line of the journal: the changes of all commits that were written together. */
export interface JournalLine {
  readonly seq: number;
  readonly changes: readonly RawChange[];
}

/** A journal that was read. `goodBytes` is where a torn last line begins, or the end. */
export interface Journal {
  /** Number of the last commit that state.json held when this journal was begun. */
  readonly base: number;
  readonly lines: readonly JournalLine[];
  readonly goodBytes: number;
  readonly tornBytes: number;
}

// {"seq":7,"changes":[…],"sum":"<64 hex digits>"}: the sum covers all that stands before it in its line.
const SUM = /^(.*),"sum":"([0-9a-f]{64})"\}$/s;
const NEWLINE = 0x0a;

function sealed(fields: object): string {
  const open = JSON.stringify(fields).slice(0, -1);
  return `${open},"sum":"${checksumOf(open)}"}\n`;
}

/** The first line of a journal that follows the commit `base`. */
export function encodeHead(base: number): string {
  return sealed({ format: FORMAT, base });
}

/** One line, with its newline. */
export function encodeLine(line: JournalLine): string {
  return sealed(line);
}

function unsealed(bytes: Uint8Array): Record<string, unknown> | undefined {
  const text = strictText(bytes);
  const match = text === undefined ? null : SUM.exec(text);
  if (match?.[1] === undefined || checksumOf(match[1]) !== match[2]) return undefined;
  return jsonObject(`${match[1]}}`);
}

function isKind(value: unknown): value is RecordKind {
  return value === "machine" || value === "snapshot" || value === "operation";
}

function changeOf(value: unknown): RawChange | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if ("put" in value && isKind(value.put) && "record" in value)
    return { put: value.put, record: value.record };
  if ("drop" in value && isKind(value.drop) && "id" in value && typeof value.id === "string") {
    return { drop: value.drop, id: value.id };
  }
  return undefined;
}

function lineOf(bytes: Uint8Array): JournalLine | undefined {
  const fields = unsealed(bytes);
  if (typeof fields?.seq !== "number" || !Array.isArray(fields.changes)) return undefined;
  const changes = fields.changes.map(changeOf);
  return changes.every((change) => change !== undefined) ? { seq: fields.seq, changes } : undefined;
}

/**
 * True when a last line that is not whole looks like an append that power loss cut off, and not like damage:
 * its end is missing, or pages of it that never reached the disk read as zeros.
 * A line that is whole but for its newline was damaged, since the newline is written with the rest.
 */
function isTorn(rest: Uint8Array): boolean {
  if (rest[0] === 0 || Buffer.from(rest).includes("\0\0")) return true;
  return rest.at(-1) !== NEWLINE && lineOf(rest.subarray(0, -1)) === undefined;
}

/**
 * Reads a journal. A torn last line was never acknowledged and is left out.
 * Throws `UnreadableError` for damage anywhere else, for a gap in the numbers and for a newer format.
 */
export function decodeJournal(bytes: Uint8Array): Journal {
  if (bytes.length === 0) throw new UnreadableError("is empty");
  const headEnd = bytes.indexOf(NEWLINE);
  const head = unsealed(bytes.subarray(0, Math.max(headEnd, 0)));
  if (head === undefined) throw new UnreadableError("is damaged in its first line");
  if (typeof head.format !== "number" || head.format > FORMAT) {
    throw new UnreadableError(`has format ${String(head.format)} and was written by a newer version`);
  }
  if (typeof head.base !== "number") throw new UnreadableError("is damaged in its first line");
  const lines: JournalLine[] = [];
  let offset = headEnd + 1;
  while (offset < bytes.length) {
    const newline = bytes.indexOf(NEWLINE, offset);
    const end = newline === -1 ? bytes.length : newline;
    const line = newline === -1 ? undefined : lineOf(bytes.subarray(offset, end));
    if (line === undefined) {
      const isLast = end >= bytes.length - 1;
      if (isLast && isTorn(bytes.subarray(offset))) break;
      throw new UnreadableError(`is damaged in line ${lines.length + 2}`);
    }
    const expected = head.base + lines.length + 1;
    if (line.seq !== expected) {
      throw new UnreadableError(
        `goes from commit ${expected - 1} to ${line.seq} in line ${lines.length + 2}`,
      );
    }
    lines.push(line);
    offset = end + 1;
  }
  return { base: head.base, lines, goodBytes: offset, tornBytes: bytes.length - offset };
}
