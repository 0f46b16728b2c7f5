/** Which bytes a request wants: `start` up to, but not with, `end`; all of them; or none that are there. */
export type Wanted = { readonly start: number; readonly end: number } | "whole" | "unsatisfiable";

/**
 * Reads a `Range` header for `size` bytes, by RFC 9110, section 14. A header that is malformed, in another unit or of
 * several ranges is ignored, as the RFC allows: the answer is the whole.
 */
export function wantedBytes(range: string | undefined, size: number): Wanted {
  const match = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(range ?? "");
  const [, first = "", last = ""] = match ?? [];
  if (first === "" && last === "") return "whole";
  if (first === "") {
    const length = Number(last);
    if (length === 0) return "unsatisfiable";
    // The last bytes of an empty file are all of it, and a range cannot say so.
    return size === 0 ? "whole" : { start: Math.max(0, size - length), end: size };
  }
  const start = Number(first);
  if (last !== "" && Number(last) < start) return "whole";
  if (start >= size) return "unsatisfiable";
  return { start, end: last === "" ? size : Math.min(size, Number(last) + 1) };
}

/** True when an `If-None-Match` header names `etag`, compared weakly, or anything at all (`*`). */
export function namesEtag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  if (header.trim() === "*") return true;
  return [...header.matchAll(/(?:W\/)?("[^"]*")/g)].some(([, opaque]) => opaque === etag);
}

/**
 * True when a range still makes sense to the client: there is no `If-Range` header, or it names exactly `etag`. A weak tag
 * or a date, of which an answer of ours has none, never does.
 */
export function rangeHolds(header: string | undefined, etag: string): boolean {
  return header === undefined || header.trim() === etag;
}
