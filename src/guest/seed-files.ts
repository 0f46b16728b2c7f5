import { extract } from "tar-stream";
import { SEED_BYTES } from "./seed.ts";

const BLOCK_BYTES = 512;

/** The regular files of a seed, by their paths. Throws a TypeError when the bytes are no seed. */
export async function seedFiles(seed: Uint8Array): Promise<ReadonlyMap<string, string>> {
  // The bound of all that is read below.
  if (seed.length !== SEED_BYTES) throw new TypeError(`not a seed: it has ${seed.length} bytes`);
  const files = new Map<string, string>();
  const reader = extract();
  reader.end(Buffer.from(seed));
  try {
    for await (const entry of reader) {
      let text = "";
      entry.setEncoding("utf8");
      for await (const chunk of entry) text += String(chunk);
      if (entry.header.type === "file") files.set(entry.header.name, text);
    }
  } catch (error) {
    throw new TypeError("not a seed: it is no tar archive", { cause: error });
  }
  return files;
}

/** One file's text without the newline at its end. Throws a TypeError when a seed has no such file. */
export function seedText(files: ReadonlyMap<string, string>, path: string): string {
  const text = files.get(path);
  if (text === undefined) throw new TypeError(`not a seed: it has no ${path}`);
  return text.trim();
}

/** The seed's tar without the padding behind it: the two blocks of zeros that end a tar stay. */
export function withoutPadding(seed: Uint8Array): Uint8Array {
  let end = seed.length;
  while (end > 0 && seed[end - 1] === 0) end -= 1;
  return seed.subarray(0, Math.min(seed.length, (Math.ceil(end / BLOCK_BYTES) + 2) * BLOCK_BYTES));
}
