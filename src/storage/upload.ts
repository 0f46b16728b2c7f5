import { Agent } from "undici";
import type { ArtifactKind, UploadSnapshot, Uploaded } from "../contract/snapshot.ts";
import type { ReadableFile } from "./types.ts";
import { sendPart } from "./upload-part.ts";
import { type Part, kindsOf, partsOf } from "./upload-plan.ts";

/** Parts on their way at the same time. */
const AT_ONCE = 4;
const CONNECT_TIMEOUT_MS = 10_000;
const STALL_MS = 60_000;

/** What an upload needs of the snapshot. */
export interface UploadSource {
  /** Makes sure that the files are those of the manifest. Throws `snapshot_invalid`. */
  check(what: "disk" | "all"): Promise<void>;
  open(kind: ArtifactKind): Promise<ReadableFile>;
}

export interface UploadSettings {
  /** How long a store may neither take a byte nor answer, in milliseconds; a minute unless given. */
  readonly stallMs?: number | undefined;
  /** First pause before a part is tried again. */
  readonly backoffMs?: number | undefined;
}

interface OpenArtifact {
  readonly id: string;
  readonly file: ReadableFile;
  readonly parts: readonly Part[];
}

/**
 * Sends files of a snapshot as the parts of multipart uploads, once the whole plan is known to be right and the files to
 * be undamaged. The first part that fails ends the others; what the store has by then is the client's to drop.
 * Throws as `Storage.uploadArtifacts` does.
 */
export async function upload(
  source: UploadSource,
  plan: UploadSnapshot,
  kindOf: (artifactId: string) => ArtifactKind | undefined,
  settings: UploadSettings,
  signal: AbortSignal = new AbortController().signal,
): Promise<Uploaded> {
  const kinds = kindsOf(plan, kindOf);
  await using opened = new AsyncDisposableStack();
  const artifacts: OpenArtifact[] = [];
  for (const [index, kind] of kinds.entries()) {
    const planned = plan.artifacts[index];
    if (planned === undefined) continue;
    const file = opened.use(await source.open(kind));
    artifacts.push({ id: planned.artifact_id, file, parts: partsOf(planned, index, file.size_bytes) });
  }
  signal.throwIfAborted();
  // Opening read the manifest; damage of the others is not to be spread.
  const others = kinds.filter((kind) => kind !== "manifest");
  if (others.length > 0)
    await orAborted(source.check(others.every((kind) => kind === "disk") ? "disk" : "all"), signal);

  const stallMs = settings.stallMs ?? STALL_MS;
  const store = new Agent({
    connections: AT_ONCE,
    headersTimeout: stallMs,
    bodyTimeout: stallMs,
    connect: { timeout: CONNECT_TIMEOUT_MS },
  });
  opened.defer(() => store.destroy());
  const etags = new Map<Part, string>();
  const work = artifacts.flatMap(({ file, parts }) => parts.map((part) => ({ file, part })));
  await eachOf(work, signal, async ({ file, part }, either) => {
    etags.set(part, await sendPart(store, part, file, { backoffMs: settings.backoffMs, signal: either }));
  });
  return {
    artifacts: artifacts.map(({ id: artifact_id, parts }) => ({
      artifact_id,
      completed_parts: parts.map((part) => ({ part_number: part.number, etag: etags.get(part) ?? "" })),
    })),
  };
}

/** Does `work` for each item, a few at a time. The first failure ends the others, and is thrown once they have ended. */
async function eachOf<Item>(
  items: readonly Item[],
  signal: AbortSignal,
  work: (item: Item, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const waiting = items.values();
  const worker = async (): Promise<void> => {
    try {
      for (const item of waiting) {
        either.throwIfAborted();
        await work(item, either);
      }
    } catch (error) {
      failed.abort(error);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  signal.throwIfAborted();
  failed.signal.throwIfAborted();
}

/** The result of `work`, or the signal's reason as soon as there is one. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const leave = (): void => reject(signal.reason);
  signal.addEventListener("abort", leave, { once: true });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
}
