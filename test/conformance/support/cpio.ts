const TRAILER = "TRAILER!!!";
const REGULAR = 0o100000;

function pad4(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}

function entry(name: string, mode: number, content: Buffer): Buffer {
  const fields = [0, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length + 1, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`;
  return Buffer.concat([pad4(Buffer.from(header)), pad4(content)]);
}

/**
 * One executable file as a newc archive. The kernel unpacks archives that follow each other in an initrd
 * in their order, so a later file takes the place of an earlier one of the same name.
 */
export function cpioOf(name: string, content: string): Buffer {
  return Buffer.concat([
    entry(name, REGULAR | 0o755, Buffer.from(content)),
    entry(TRAILER, 0, Buffer.alloc(0)),
  ]);
}
