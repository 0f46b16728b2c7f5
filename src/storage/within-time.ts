import { AppError } from "../contract/errors.ts";

/**
 * Does a transfer within `timeoutMs`; `label` is what its source is called. The signal that `work` gets ends it.
 * Throws `artifact_unavailable` when the time is over, the signal's reason, or what the work threw.
 */
export async function withinTime<T>(
  timeoutMs: number,
  label: string,
  signal: AbortSignal,
  work: (bounded: AbortSignal) => Promise<T>,
): Promise<T> {
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    return await work(AbortSignal.any([signal, timeout]));
  } catch (error) {
    if (!timeout.aborted || signal.aborted) throw error;
    const seconds = Math.round(timeoutMs / 1000);
    throw new AppError("artifact_unavailable", `${label} could not be fetched within ${seconds} seconds.`);
  }
}
