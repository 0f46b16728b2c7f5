/**
 * The operating system's errors in the words of the real programs, which print them as
 * `No such file or directory (os error 2)`. libuv's own sentences differ, so the common ones are spelled out.
 */
import { getSystemErrorMap } from "node:util";

const SENTENCES: Readonly<Record<number, string>> = {
  1: "Operation not permitted",
  2: "No such file or directory",
  5: "Input/output error",
  9: "Bad file descriptor",
  13: "Permission denied",
  16: "Device or resource busy",
  17: "File exists",
  19: "No such device",
  20: "Not a directory",
  21: "Is a directory",
  22: "Invalid argument",
  24: "Too many open files",
  26: "Text file busy",
  27: "File too large",
  28: "No space left on device",
  30: "Read-only file system",
  36: "File name too long",
  40: "Too many levels of symbolic links",
  98: "Address already in use",
};

/** The names that the real programs' debug output gives to the kinds of error that matter here. */
const KINDS: Readonly<Record<number, string>> = {
  1: "PermissionDenied",
  2: "NotFound",
  13: "PermissionDenied",
  16: "ResourceBusy",
  17: "AlreadyExists",
  20: "NotADirectory",
  21: "IsADirectory",
  22: "InvalidInput",
  28: "StorageFull",
  30: "ReadOnlyFilesystem",
  36: "InvalidFilename",
  98: "AddrInUse",
};

/** An errno that was met by hand rather than thrown by Node, e.g. EINVAL for a file that is no namespace. */
export class OsError extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(sentenceOf(errno));
    this.name = "OsError";
    this.errno = -Math.abs(errno);
  }
}

/** The positive errno of an error thrown by Node, or undefined if it carries none. */
export function errnoOf(error: unknown): number | undefined {
  if (error instanceof Error && "errno" in error && typeof error.errno === "number") {
    return Math.abs(error.errno);
  }
  return undefined;
}

/** `Permission denied (os error 13)`; an error without an errno gives its own message. */
export function osErrorText(error: unknown): string {
  const errno = errnoOf(error);
  if (errno === undefined) return error instanceof Error ? error.message : String(error);
  return `${sentenceOf(errno)} (os error ${errno})`;
}

/** The debug form: `Os { code: 13, kind: PermissionDenied, message: "Permission denied" }`. */
export function osErrorDebug(error: unknown): string {
  const errno = errnoOf(error);
  if (errno === undefined) return JSON.stringify(error instanceof Error ? error.message : String(error));
  return `Os { code: ${errno}, kind: ${KINDS[errno] ?? "Uncategorized"}, message: ${JSON.stringify(sentenceOf(errno))} }`;
}

function sentenceOf(errno: number): string {
  const known = SENTENCES[errno];
  if (known !== undefined) return known;
  const [, words] = getSystemErrorMap().get(-errno) ?? ["", "Unknown error"];
  return words.charAt(0).toUpperCase() + words.slice(1);
}
