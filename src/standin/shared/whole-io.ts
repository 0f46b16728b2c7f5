/** Reads and writes of whole buffers: a system call may do a part and stop, as at the end of a disk. */
import { readSync, writeSync } from "node:fs";

/** Fills `into` from `position` on. Throws the OS's error, or an error when the file ends before. */
export function readWhole(fd: number, into: Buffer, position: number): void {
  for (let at = 0; at < into.length; ) {
    const got = readSync(fd, into, at, into.length - at, position + at);
    if (got === 0) throw new Error("the file ends early");
    at += got;
  }
}

/** Writes all of `from` at `position`. Throws the OS's error. */
export function writeWhole(fd: number, from: Buffer, position: number): void {
  for (let at = 0; at < from.length; ) at += writeSync(fd, from, at, from.length - at, position + at);
}
