import type { StateDisk, StateFile } from "../../../src/state/disk.ts";

type Edit = { readonly at: number; readonly bytes: Uint8Array } | { readonly cutTo: number };

interface Inode {
  /** What survives a loss of power for certain. */
  durable: Buffer;
  /** What was done since, in order. */
  pending: Edit[];
}

type NameEdit =
  | { readonly set: string; readonly inode: Inode }
  | { readonly unset: string }
  | { readonly move: string; readonly to: string };

/** What a disk without power answers, to everything. */
export class PowerLost extends Error {}

function edited(content: Buffer, edit: Edit): Buffer {
  if ("cutTo" in edit) {
    return edit.cutTo <= content.length
      ? content.subarray(0, edit.cutTo)
      : Buffer.concat([content, Buffer.alloc(edit.cutTo - content.length)]);
  }
  const end = edit.at + edit.bytes.length;
  const next = Buffer.alloc(Math.max(content.length, end));
  content.copy(next);
  next.set(edit.bytes, edit.at);
  return next;
}

function renamed(names: Map<string, Inode>, edit: NameEdit): void {
  if ("set" in edit) names.set(edit.set, edit.inode);
  else if ("unset" in edit) names.delete(edit.unset);
  else {
    const inode = names.get(edit.move);
    if (inode === undefined) throw Object.assign(new Error(`no ${edit.move}`), { code: "ENOENT" });
    names.delete(edit.move);
    names.set(edit.to, inode);
  }
}

/** A folder in memory that knows what is durable, and can fail or lose power at any of its operations. */
export class MemoryDisk implements StateDisk {
  #durableNames = new Map<string, Inode>();
  #pendingNames: NameEdit[] = [];
  #names = new Map<string, Inode>();
  #powerLost = false;
  /** Operations so far that could change something. */
  operations = 0;
  /** Power is lost at this operation, of which any part may be done. */
  powerLossAt = Number.POSITIVE_INFINITY;
  /** Throws what it returns, before the operation with this name takes effect. */
  fault: ((operation: string, path: string) => Error | undefined) | undefined;

  #step(operation: string, path: string): void {
    if (this.#powerLost) throw new PowerLost();
    this.operations += 1;
    const error = this.fault?.(operation, path);
    if (error !== undefined) throw error;
    if (this.operations >= this.powerLossAt) this.#powerLost = true;
  }

  #endStep(): void {
    if (this.#powerLost) throw new PowerLost();
  }

  #change(edit: NameEdit): void {
    renamed(this.#names, edit);
    this.#pendingNames.push(edit);
  }

  /**
   * The disk as it may be when the power is back. `choose(n)` picks one of 0 … n: of the changes to names since they were
   * last synced any may be missing; of each file some of its unsynced edits are there, the last of them in part or with zeros.
   */
  afterPowerLoss(choose: (n: number) => number): MemoryDisk {
    const after = new MemoryDisk();
    const names = new Map(this.#durableNames);
    for (const edit of this.#pendingNames) {
      const possible = !("move" in edit) || names.has(edit.move);
      if (possible && choose(2) > 0) renamed(names, edit);
    }
    const survivors = new Map<Inode, Inode>();
    for (const [path, inode] of names) {
      const survivor = survivors.get(inode) ?? { durable: survive(inode, choose), pending: [] };
      survivors.set(inode, survivor);
      after.#durableNames.set(path, survivor);
      after.#names.set(path, survivor);
    }
    return after;
  }

  /** Puts a file there, durable. */
  place(path: string, content: string | Uint8Array): void {
    const inode = { durable: Buffer.from(content), pending: [] };
    this.#names.set(path, inode);
    this.#durableNames.set(path, inode);
  }

  /** The file as a reader sees it now, or undefined. */
  content(path: string): Buffer | undefined {
    const inode = this.#names.get(path);
    return inode?.pending.reduce(edited, inode.durable);
  }

  get paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  makeDirectory(): Promise<void> {
    return Promise.resolve();
  }

  async read(path: string): Promise<Uint8Array | undefined> {
    if (this.#powerLost) throw new PowerLost();
    return this.content(path);
  }

  async open(path: string, how: "open" | "create"): Promise<StateFile> {
    this.#step("open", path);
    let inode = this.#names.get(path);
    if (how === "create" && inode === undefined) {
      inode = { durable: Buffer.alloc(0), pending: [] };
      this.#change({ set: path, inode });
    } else if (how === "create") inode?.pending.push({ cutTo: 0 });
    if (inode === undefined) throw Object.assign(new Error(`no ${path}`), { code: "ENOENT" });
    this.#endStep();
    return this.#file(path, inode);
  }

  #file(path: string, inode: Inode): StateFile {
    const sync = async (): Promise<void> => {
      this.#step("sync", path);
      // Power that is lost during a sync leaves the edits as uncertain as they were.
      this.#endStep();
      inode.durable = inode.pending.reduce(edited, inode.durable);
      inode.pending = [];
    };
    return {
      write: async (bytes, at) => {
        this.#step("write", path);
        inode.pending.push({ at, bytes: Buffer.from(bytes) });
        this.#endStep();
      },
      truncate: async (length) => {
        this.#step("truncate", path);
        inode.pending.push({ cutTo: length });
        this.#endStep();
      },
      datasync: sync,
      sync,
      close: async () => {},
    };
  }

  async link(existing: string, path: string): Promise<void> {
    this.#step("link", path);
    const inode = this.#names.get(existing);
    if (inode === undefined) throw Object.assign(new Error(`no ${existing}`), { code: "ENOENT" });
    if (this.#names.has(path)) throw Object.assign(new Error(`${path} exists`), { code: "EEXIST" });
    this.#change({ set: path, inode });
    this.#endStep();
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step("rename", to);
    this.#change({ move: from, to });
    this.#endStep();
  }

  async remove(path: string): Promise<void> {
    this.#step("remove", path);
    if (this.#names.has(path)) this.#change({ unset: path });
    this.#endStep();
  }

  async syncDirectory(path: string): Promise<void> {
    this.#step("sync", path);
    this.#endStep();
    this.#durableNames = new Map(this.#names);
    this.#pendingNames = [];
  }
}

function survive(inode: Inode, choose: (n: number) => number): Buffer {
  const done = choose(inode.pending.length);
  const content = inode.pending.slice(0, done).reduce(edited, inode.durable);
  const last = inode.pending[done];
  if (last === undefined || "cutTo" in last) return content;
  const bytes = Buffer.from(last.bytes);
  const cut = choose(bytes.length);
  // Either the end is missing, or the length is there and a page of it is not.
  if (choose(1) === 0) return edited(content, { at: last.at, bytes: bytes.subarray(0, cut) });
  return edited(content, { at: last.at, bytes: bytes.fill(0, cut) });
}
