import { AppError, isDiskFull, messageOf } from "../contract/errors.ts";
import type { Log } from "../system/log.ts";
import { type StateDisk, type StateFile, systemDisk } from "./disk.ts";
import { type StatePaths, foldFiles, statePaths } from "./folder.ts";
import { encodeLine } from "./journal.ts";
import { type Records, problemOfChange } from "./records.ts";
import { type Recovered, recover } from "./recover.ts";
import type { Change, SetAsideRecord, State, StateStore } from "./types.ts";

export interface StateOptions {
  /** The state folder; made (0700) when missing. */
  readonly dir: string;
  readonly log: Log;
  readonly disk?: StateDisk;
  /** Length of the journal at which it is folded into state.json. */
  readonly foldAfter?: { readonly bytes: number; readonly lines: number };
}

interface Waiter {
  readonly changes: readonly Change[];
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

const FOLD_AFTER = { bytes: 1024 * 1024, lines: 4096 };

/** How long after a failure what must succeed first is tried again, when no commit comes before. */
const PAY_AFTER_MS = 1000;

/**
 * Opens the state in `dir`, or begins an empty one. Throws a plain Error whose sentence says what to do when the files
 * are damaged, cut short or newer; they are never overwritten then. One process at a time: the caller holds the root's lock.
 */
export async function openState(options: StateOptions): Promise<StateStore> {
  const { dir, log, disk = systemDisk, foldAfter = FOLD_AFTER } = options;
  const paths = statePaths(dir);
  const recovered = await recover(disk, paths, log);
  for (const { kind, id, reason } of recovered.records.setAside) {
    log.error({ kind, id, reason }, "a record of the state was not understood and is set aside");
  }
  const store = new Store(disk, paths, log, foldAfter, recovered);
  if (recovered.foldNow) await store.fold();
  return store;
}

class Store implements StateStore {
  readonly #disk: StateDisk;
  readonly #paths: StatePaths;
  readonly #log: Log;
  readonly #foldAfter: { readonly bytes: number; readonly lines: number };
  readonly #records: Records;
  #seq: number;
  #file: StateFile;
  #length: number;
  /** Lines in the journal that state.json does not hold. */
  #lines: number;
  /** A fold that failed is tried again when the journal is this much longer. */
  #foldsFailed = 0;
  #queue: Waiter[] = [];
  #writing: Promise<void> | undefined;
  /** What failed and must succeed before anything more is written: until then the journal may hold something else than we think. */
  #owed: (() => Promise<void>) | undefined;
  #payTimer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(
    disk: StateDisk,
    paths: StatePaths,
    log: Log,
    foldAfter: { readonly bytes: number; readonly lines: number },
    recovered: Recovered,
  ) {
    this.#disk = disk;
    this.#paths = paths;
    this.#log = log;
    this.#foldAfter = foldAfter;
    this.#records = recovered.records;
    this.#seq = recovered.seq;
    this.#file = recovered.journal.file;
    this.#length = recovered.journal.length;
    this.#lines = recovered.lines;
  }

  get state(): State {
    return this.#records;
  }

  get setAside(): readonly SetAsideRecord[] {
    return this.#records.setAside;
  }

  async commit(...changes: readonly Change[]): Promise<void> {
    if (this.#closed) throw new AppError("shutting_down", "The daemon is ending.");
    for (const change of changes) {
      const problem = problemOfChange(change);
      // Written, it would be set aside at the next start.
      if (problem !== undefined)
        throw new AppError("internal", `A malformed change of the state: ${problem}.`);
    }
    if (changes.length === 0) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#queue.push({ changes, resolve, reject });
    this.#writing ??= this.#writeQueue();
    await promise;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#payTimer);
    await this.#writing;
    await this.#payOwed();
    if (this.#lines > 0 && this.#owed === undefined) await this.fold();
    await this.#file.close();
  }

  /** Writes what waits, one line and one fdatasync for all of it, until nothing waits. */
  async #writeQueue(): Promise<void> {
    // Commits of the same turn of the event loop join the first line.
    await Promise.resolve();
    if (this.#queue.length === 0) await this.#payOwed();
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      const error = await this.#append(batch.flatMap((waiter) => waiter.changes));
      for (const waiter of batch) {
        if (error === undefined) waiter.resolve();
        else waiter.reject(error);
      }
      if (error === undefined && this.#isLong()) await this.fold();
    }
    this.#writing = undefined;
  }

  /** Appends one line. Returns the error, after which neither file nor memory hold anything of it. */
  async #append(changes: readonly Change[]): Promise<AppError | undefined> {
    const unpaid = await this.#payOwed();
    if (unpaid !== undefined) return unpaid;
    const line = Buffer.from(encodeLine({ seq: this.#seq + 1, changes }));
    try {
      await this.#file.write(line, this.#length);
      await this.#file.datasync();
    } catch (error) {
      await this.#cutBack();
      return writeError(error);
    }
    this.#seq += 1;
    this.#length += line.length;
    this.#lines += 1;
    this.#records.apply(changes);
    return undefined;
  }

  /** Does what failed before and must succeed first. Returns the error when it fails again; then it is tried a second later. */
  async #payOwed(): Promise<AppError | undefined> {
    try {
      await this.#owed?.();
      this.#owed = undefined;
      return undefined;
    } catch (error) {
      this.#payLater();
      return writeError(error);
    }
  }

  #payLater(): void {
    if (this.#closed) return;
    this.#payTimer ??= setTimeout(() => {
      this.#payTimer = undefined;
      this.#writing ??= this.#writeQueue();
    }, PAY_AFTER_MS).unref();
  }

  /** Removes the half line of a failed append. What stood before it was synced before, so that this is enough. */
  async #cutBack(): Promise<void> {
    const cut = async (): Promise<void> => {
      await this.#file.truncate(this.#length);
      await this.#file.datasync();
    };
    try {
      await cut();
    } catch (error) {
      this.#owed = cut;
      this.#payLater();
      this.#log.error(
        { err: error },
        "the journal could not be cut back after a failed write: it is tried again, and first",
      );
    }
  }

  #isLong(): boolean {
    const factor = 1 + this.#foldsFailed;
    return this.#length >= this.#foldAfter.bytes * factor || this.#lines >= this.#foldAfter.lines * factor;
  }

  /** Folds the journal into state.json. Not being able to costs nothing: the old files hold everything. */
  async fold(): Promise<void> {
    const old = this.#file;
    try {
      const document = { seq: this.#seq, records: this.#records.toRaw() };
      const journal = await foldFiles(this.#disk, this.#paths, document);
      this.#file = journal.file;
      this.#length = journal.length;
      this.#lines = 0;
      this.#foldsFailed = 0;
    } catch (error) {
      this.#foldsFailed += 1;
      this.#log.warn(
        { err: error, lines: this.#lines },
        `the journal could not be folded: ${messageOf(error)}`,
      );
      return;
    }
    const sync = (): Promise<void> => this.#disk.syncDirectory(this.#paths.dir);
    try {
      await sync();
    } catch (error) {
      // After power loss the name may stand for the old journal, without what would be written from here on.
      this.#owed = sync;
      this.#payLater();
      this.#log.error(
        { err: error },
        "the new journal could not be made durable: it is tried again, and first",
      );
    }
    await old.close();
  }
}

function writeError(error: unknown): AppError {
  if (isDiskFull(error)) {
    return new AppError("disk_full", "The daemon's filesystem has no room left for its state.", {
      cause: error,
    });
  }
  return new AppError("internal", `The state could not be written: ${messageOf(error)}.`, { cause: error });
}
