import { AppError, isDiskFull, messageOf } from "../contract/errors.ts";

/** The client's error for a disk without room. */
export function diskFull(cause?: unknown): AppError {
  return new AppError("disk_full", "The daemon's filesystem has no room left.", { cause });
}

/** What is thrown at the room's door for a failure while `doing` something: disk_full, or internal with the words. */
export function storageError(thrown: unknown, doing: string): unknown {
  if (thrown instanceof AppError) return thrown;
  // An abort is the caller's own reason, and goes back as it came.
  if (thrown instanceof Error && thrown.name === "AbortError") return thrown;
  if (isDiskFull(thrown)) return diskFull(thrown);
  return new AppError("internal", `${doing} failed: ${messageOf(thrown)}`, { cause: thrown });
}
