import { checksumOf, jsonObject, strictText } from "./checksum.ts";
import type { RawRecords } from "./records.ts";

/** The format of state.json and of the journal that this version writes, and the newest that it reads. */
export const FORMAT = 1;

/** What state.json says: all records as of the commit with number `seq`. */
export interface Document {
  readonly seq: number;
  readonly records: RawRecords;
}

/** The state before the first commit. */
export const EMPTY_DOCUMENT: Document = { seq: 0, records: { machines: [], snapshots: [], operations: [] } };

/** Why a file cannot be used, without the path and without advice. */
export class UnreadableError extends Error {}

// The checksum is that of the very bytes behind it, so the head is matched and not parsed.
const HEAD = /^\{"format":(\d+),"sha256":"([0-9a-f]{64})","content":/;
const TAIL = "}\n";

/** The text of state.json. */
export function encodeDocument(document: Document): string {
  const content = JSON.stringify({ seq: document.seq, ...document.records });
  return `{"format":${FORMAT},"sha256":"${checksumOf(content)}","content":${content}${TAIL}`;
}

function listIn(content: Record<string, unknown>, key: keyof RawRecords): readonly unknown[] {
  const list = content[key];
  if (!Array.isArray(list)) throw new UnreadableError(`has no list of ${key}`);
  return list;
}

/** Reads state.json. Throws `UnreadableError` when it is empty, cut short, damaged or newer than this version. */
export function decodeDocument(bytes: Uint8Array): Document {
  if (bytes.length === 0) throw new UnreadableError("is empty");
  const text = strictText(bytes);
  if (text === undefined) throw new UnreadableError("is damaged (not UTF-8)");
  const format = jsonObject(text)?.format;
  if (typeof format === "number" && format > FORMAT) {
    throw new UnreadableError(
      `has format ${format} and was written by a newer version, this one reads up to ${FORMAT}`,
    );
  }
  const head = HEAD.exec(text);
  if (head === null) throw new UnreadableError("is not a state file");
  if (!text.endsWith(TAIL)) throw new UnreadableError("is cut short");
  const content = text.slice(head[0].length, -TAIL.length);
  if (Number(head[1]) !== FORMAT || checksumOf(content) !== head[2]) {
    throw new UnreadableError("is damaged (its checksum does not match)");
  }
  const parsed = jsonObject(content);
  if (parsed === undefined || typeof parsed.seq !== "number") throw new UnreadableError("has no content");
  return {
    seq: parsed.seq,
    records: {
      machines: listIn(parsed, "machines"),
      snapshots: listIn(parsed, "snapshots"),
      operations: listIn(parsed, "operations"),
    },
  };
}
