import type { Item, Owner, Scope } from "./item.ts";
import { asRecord, jsonIn, ownerOfLink, type Place, records } from "./place.ts";

/** An element of a set or map: the table and set it lies in, and its text. */
export interface Element {
  readonly table: string;
  readonly set: string;
  readonly text: string;
}

/** Tables, chains, rules, sets and maps of `place`, and each element as a thing of its own. */
export async function readNftables(scope: Scope, place: Place): Promise<Item[]> {
  const answer = asRecord(await jsonIn(place, ["nft", "-j", "list", "ruleset"]));
  const items: Item[] = [];
  const seen = new Map<string, number>();
  const add = (name: string, value: string, owner: Owner | undefined): void => {
    // Two rules may read the same: the second is another thing.
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    items.push({
      resource: "nft",
      name: `${place.label}: ${count === 1 ? name : `${name} (${count})`}`,
      value,
      ...(place.slot !== undefined
        ? { owner: { of: "slot", index: place.slot } }
        : owner === undefined
          ? {}
          : { owner }),
    });
  };
  for (const entry of records(answer?.["nftables"])) {
    for (const [kind, body] of Object.entries(entry)) {
      const object = asRecord(body);
      if (object === undefined || kind === "metainfo") continue;
      const { handle: _handle, elem, expr, ...rest } = object;
      const table = `${String(rest["family"])} ${String(kind === "table" ? rest["name"] : rest["table"])}`;
      const owner = ownerOfTable(scope, table);
      if (kind === "table") add(`table ${table}`, "", owner);
      else if (kind === "rule")
        add(`rule in ${table} ${String(rest["chain"])}: ${JSON.stringify(withoutCounters(expr))}`, "", owner);
      else add(`${kind} ${table} ${String(rest["name"])}`, JSON.stringify(rest), owner);
      for (const element of Array.isArray(elem) ? elem : []) {
        const text = JSON.stringify(withoutCounters(element));
        add(elementName({ table, set: String(rest["name"]), text }), "", ownerOfElement(scope, owner, text));
      }
    }
  }
  return items;
}

function elementName({ table, set, text }: Element): string {
  return `element of ${table} ${set}: ${text}`;
}

/** Reads `name` of an item as an element, or returns undefined when it is something else. */
export function elementOf(name: string): Element | undefined {
  const match = /: element of (\S+ \S+) (\S+): (.*)$/.exec(name);
  const [, table, set, text] = match ?? [];
  return table === undefined || set === undefined || text === undefined ? undefined : { table, set, text };
}

function ownerOfTable(scope: Scope, table: string): Owner | undefined {
  if (table === `inet computer-host-${scope.tag}`) return { of: "daemon" };
  return table.includes(scope.tag) ? { of: "stray" } : undefined;
}

/** An element that names a slot's link is that slot's. */
function ownerOfElement(scope: Scope, ofTable: Owner | undefined, text: string): Owner | undefined {
  for (const [word] of text.matchAll(/[a-z0-9]+/g)) {
    const owner = ownerOfLink(scope, word);
    if (owner?.of === "slot") return owner;
  }
  return ofTable;
}

/** `value` without packet and byte counts, expiry times and handles. */
function withoutCounters(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutCounters);
  const record = asRecord(value);
  if (record === undefined) return value;
  return Object.fromEntries(
    Object.entries(record)
      .filter(([key]) => !["packets", "bytes", "expires", "handle", "used"].includes(key))
      .map(([key, inner]) => [key, withoutCounters(inner)]),
  );
}
