import { InvalidArgumentError } from "commander";

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** `2GiB`, `512MiB` or a number of `plainUnit`, in bytes. Throws commander's usage error on anything else. */
function parseBytes(text: string, plainUnit: keyof typeof UNITS): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]iB)?$/.exec(text);
  const bytes = Number(match?.[1]) * (UNITS[match?.[2] ?? plainUnit] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) throw new InvalidArgumentError("Give a size such as 512MiB or 2GiB.");
  return bytes;
}

/** Size of a disk in bytes; a plain number is bytes. */
export function parseDiskBytes(text: string): number {
  return parseBytes(text, "");
}

/** Size of a memory in MiB; a plain number is MiB. */
export function parseMemoryMib(text: string): number {
  const mib = parseBytes(text, "MiB") / 2 ** 20;
  if (!Number.isInteger(mib)) throw new InvalidArgumentError("Memory comes in whole MiB.");
  return mib;
}

/** A whole number. */
export function parseCount(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError("Give a whole number.");
  return Number(text);
}

/** `bytes` for people: `512 MiB`, `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  for (const unit of ["TiB", "GiB", "MiB", "KiB"]) {
    const value = bytes / (UNITS[unit] ?? 1);
    if (value >= 1) return `${Number(value.toFixed(1))} ${unit}`;
  }
  return `${bytes} B`;
}
