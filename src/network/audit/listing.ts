import { run } from "../../system/run.ts";

/** What `nft -j list table` says, as far as it is read here. */
export interface Listing {
  /** The table without handles and without the elements of `apart`, to be compared with another listing. */
  readonly text: string;
  /** Elements of the set `apart`, each as its JSON. */
  readonly elements: readonly string[];
}

/** Lists a table of this namespace, or returns undefined when there is none. The elements of the set `apart` are told apart. */
export async function listTable(name: string, apart: string): Promise<Listing | undefined> {
  const { code, stdout } = await run(["nft", "-j", "list", "table", "inet", name], { okCodes: [0, 1] });
  return code === 0 ? readListing(stdout, apart) : undefined;
}

/** Reads the JSON of nft. `replace` turns words that differ from one slot to another into what they stand for. */
export function readListing(
  json: string,
  apart?: string,
  replace: Readonly<Record<string, string>> = {},
): Listing {
  const { nftables } = JSON.parse(json) as { nftables: readonly Readonly<Record<string, unknown>>[] };
  const elements: string[] = [];
  const rest = nftables
    .filter((item) => !("metainfo" in item))
    .map((item) => {
      const set = item["set"] as { readonly name?: string; readonly elem?: readonly unknown[] } | undefined;
      if (set === undefined || set.name !== apart) return item;
      elements.push(...(set.elem ?? []).map((element) => JSON.stringify(element)));
      const { elem: _elem, ...others } = set;
      return { set: others };
    });
  return { text: JSON.stringify(rest, (key, value: unknown) => tidied(key, value, replace)), elements };
}

/** Handles differ between two installations of one text, and the order of a set's elements means nothing. */
function tidied(key: string, value: unknown, replace: Readonly<Record<string, string>>): unknown {
  if (key === "handle") return undefined;
  if (key === "elem" && Array.isArray(value))
    return value.toSorted((one, other) => (JSON.stringify(one) < JSON.stringify(other) ? -1 : 1));
  return typeof value === "string" ? (replace[value] ?? value) : value;
}
