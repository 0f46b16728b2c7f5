/** A snapshot's memory file: the guest's memory from its first byte to its last, and nothing else. */
import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync } from "node:fs";

import { osErrorText } from "../shared/os-error.ts";
import { readWhole, writeWhole } from "../shared/whole-io.ts";
import { Fault } from "./fault.ts";
import { type GuestMemory, PAGE } from "./guest-memory.ts";

type Memory = Pick<GuestMemory, "bytes" | "read" | "write" | "isTouched">;

const CHUNK = 256 * PAGE;
const ZEROS = Buffer.alloc(CHUNK);
const LOAD_FAILED =
  "Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: Error creating guest memory from file";

/**
 * Writes the memory of a guest that stands still. Full: pages of zeros become holes. Diff: a file of the guest's size
 * is taken for a former memory and changed where it differs, so that it is this one in the end; into any other file
 * goes all that the guest ever touched, zeros too, since nothing here knows what changed. Throws Fault.
 */
export function writeMemoryFile(path: string, memory: Memory, type: "Full" | "Diff"): void {
  let doing = "open";
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o666);
    doing = "get_metadata";
    const isFormer = type === "Diff" && fstatSync(fd).size === memory.bytes;
    doing = "truncate";
    if (!isFormer) ftruncateSync(fd, 0);
    doing = "set_length";
    ftruncateSync(fd, memory.bytes);
    doing = "write";
    const now = Buffer.alloc(CHUNK);
    const former = Buffer.alloc(CHUNK);
    for (let offset = 0; offset < memory.bytes; offset += CHUNK) {
      const isTouched = memory.isTouched(offset, CHUNK);
      if (!isTouched && !isFormer) continue;
      if (isTouched) memory.read(offset, now);
      if (isFormer) readWhole(fd, former, offset);
      const before = isFormer ? former : type === "Full" ? ZEROS : undefined;
      writeChanges(fd, offset, isTouched ? now : ZEROS, before);
    }
    doing = "sync_all";
    fsyncSync(fd);
  } catch (cause) {
    const why =
      doing === "write"
        ? `Cannot write memory file: Cannot dump memory: Guest memory error: ${osErrorText(cause)}`
        : `Cannot perform ${doing} on the memory backing file: ${osErrorText(cause)}`;
    throw new Fault(`Create snapshot error: ${why}`, { cause });
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Opens a memory file for a guest of `bytes`. It may be longer. Throws Fault. */
export function openMemoryFile(path: string, bytes: number): number {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY);
    if (fstatSync(fd).size >= bytes) return fd;
  } catch (cause) {
    if (fd !== undefined) closeSync(fd);
    throw new Fault(`${LOAD_FAILED}: Failed to load guest memory: ${osErrorText(cause)}`, { cause });
  }
  closeSync(fd);
  throw new Fault(
    `${LOAD_FAILED}: Failed to restore guest memory: Total sum of memory regions exceeds largest possible file offset`,
  );
}

/** Copies the memory in the file into a guest that was never run. Throws the OS's error. */
export function fillFromFile(fd: number, memory: Memory): void {
  const chunk = Buffer.alloc(CHUNK);
  for (let offset = 0; offset < memory.bytes; offset += CHUNK) {
    readWhole(fd, chunk, offset);
    const before = memory.isTouched(offset, CHUNK) ? undefined : ZEROS;
    for (const [from, to] of changes(chunk, before)) memory.write(offset + from, chunk.subarray(from, to));
  }
}

function writeChanges(fd: number, offset: number, now: Buffer, before: Buffer | undefined): void {
  for (const [from, to] of changes(now, before)) {
    writeWhole(fd, now.subarray(from, to), offset + from);
  }
}

/** Where `now` is not what was `before`, in whole pages; all of it when nobody knows what was. */
function* changes(now: Buffer, before: Buffer | undefined): Generator<readonly [from: number, to: number]> {
  if (now === before) return;
  if (before === undefined) {
    yield [0, now.length];
    return;
  }
  let from: number | undefined;
  for (let at = 0; at < now.length; at += PAGE) {
    const isSame = now.compare(before, at, at + PAGE, at, at + PAGE) === 0;
    if (isSame && from !== undefined) {
      yield [from, at];
      from = undefined;
    } else if (!isSame) from ??= at;
  }
  if (from !== undefined) yield [from, now.length];
}
