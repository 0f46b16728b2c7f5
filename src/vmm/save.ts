import { AppError } from "../contract/errors.ts";
import type { FirecrackerApi } from "./api.ts";
import { lend, takeBack } from "./lending.ts";
import type { SaveTarget } from "./types.ts";

/** What the two files of a snapshot are called in the jail while the VMM writes them. */
export const SAVE_STATE = "/save-state";
export const SAVE_MEMORY = "/save-memory";

/** The slowest disk that is waited for takes 64 MiB a second, and half a minute to begin with. */
const BASE_TIMEOUT_MS = 30_000;
const MIB_PER_SECOND = 64;

/**
 * Lends the two files to the VMM in the jail at `root` and lets it write the paused guest into them,
 * for as long as `timeoutMs`.
 * Throws `disk_full` when the VMM says that there was no room, else as `lend` and `FirecrackerApi.send`.
 */
export async function saveGuest(
  api: FirecrackerApi,
  root: string,
  { kind, state, memory }: SaveTarget,
  timeoutMs: number,
): Promise<void> {
  await using _lent = await lend(root, [
    { source: state, path: SAVE_STATE },
    { source: memory, path: SAVE_MEMORY },
  ]);
  try {
    await api.send({
      method: "PUT",
      path: "/snapshot/create",
      body: {
        snapshot_type: kind === "full" ? "Full" : "Diff",
        snapshot_path: SAVE_STATE,
        mem_file_path: SAVE_MEMORY,
      },
      timeoutMs,
    });
  } catch (error) {
    throw saysDiskFull(error)
      ? new AppError("disk_full", "There is no room left for the guest's memory.", {
          details: error.details ?? {},
          cause: error,
        })
      : error;
  }
}

/** How long a guest of this much memory may take to be written, in milliseconds. */
export function saveTimeoutMs(memoryMib: number): number {
  return BASE_TIMEOUT_MS + Math.ceil(memoryMib / MIB_PER_SECOND) * 1000;
}

/** Takes back what a daemon that was killed in the middle of a save left in the jail. */
export async function endSave(root: string): Promise<void> {
  await takeBack(root, SAVE_STATE);
  await takeBack(root, SAVE_MEMORY);
}

/** A VMM passes on the kernel's reason in its words only: ENOSPC, EFBIG or EDQUOT by number, as Rust prints it. */
function saysDiskFull(error: unknown): error is AppError {
  if (!(error instanceof AppError) || error.code !== "vmm_failed") return false;
  const said = error.details?.["said"];
  return typeof said === "string" && /(?:os error|code:) (?:27|28|122)\b/.test(said);
}
