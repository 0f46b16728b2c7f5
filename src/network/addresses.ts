/** A block of IPv4 addresses: `base` is its first address as an unsigned 32-bit number. */
export interface Cidr {
  readonly base: number;
  readonly prefix: number;
}

/** Parses `a.b.c.d` into an unsigned 32-bit number, or undefined when it is anything else (leading zeros too). */
export function parseAddress(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

/** Writes an unsigned 32-bit number as `a.b.c.d`. */
export function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
}

/** How many addresses a block holds. */
export function sizeOf(cidr: Cidr): number {
  return 2 ** (32 - cidr.prefix);
}

/**
 * Parses `a.b.c.d/len`, or `a.b.c.d` as a block of one. Undefined when it is no block:
 * an address with bits set beyond its prefix is a mistake and not rounded.
 */
export function parseCidr(text: string): Cidr | undefined {
  const [address = "", length, ...rest] = text.split("/");
  const base = parseAddress(address);
  if (base === undefined || rest.length > 0) return undefined;
  if (length !== undefined && !/^(0|[1-9]\d?)$/.test(length)) return undefined;
  const prefix = length === undefined ? 32 : Number(length);
  if (prefix > 32 || base % 2 ** (32 - prefix) !== 0) return undefined;
  return { base, prefix };
}

/** Writes a block as `a.b.c.d/len`. */
export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.base)}/${cidr.prefix}`;
}

/** True when `inner` lies wholly in `outer`. */
export function contains(outer: Cidr, inner: Cidr): boolean {
  return inner.base >= outer.base && inner.base + sizeOf(inner) <= outer.base + sizeOf(outer);
}

/** True when the two blocks share an address; blocks are aligned, so one then holds the other. */
export function overlaps(one: Cidr, other: Cidr): boolean {
  return contains(one, other) || contains(other, one);
}

/** The same addresses without blocks that lie in another: an nftables interval set refuses overlaps. */
export function withoutContained(blocks: readonly Cidr[]): Cidr[] {
  const kept: Cidr[] = [];
  for (const block of [...blocks].sort((a, b) => a.prefix - b.prefix)) {
    if (!kept.some((larger) => contains(larger, block))) kept.push(block);
  }
  return kept.sort((a, b) => a.base - b.base);
}
