import { describeOwner, type Difference, type Inventory, type Item } from "./item.ts";

/** What of `after` was not there in `before` (leaked), what is gone (missing), and what has another value (altered). */
export function compareWithBefore(before: Inventory, after: Inventory): Difference[] {
  const was = byName(before.items);
  const is = byName(after.items);
  const differences: Difference[] = [];
  for (const [key, item] of is) {
    const earlier = was.get(key);
    if (earlier === undefined) differences.push(difference("leaked", item));
    else if (earlier.value !== item.value)
      differences.push(difference("altered", item, `was ${earlier.value}, is ${item.value}`));
  }
  for (const [key, item] of was) if (!is.has(key)) differences.push(difference("missing", item));
  return differences;
}

/** A difference about `item`. */
export function difference(kind: Difference["kind"], item: Item, how?: string): Difference {
  return {
    kind,
    resource: item.resource,
    what: how === undefined ? item.name : `${item.name}: ${how}`,
    ...(item.owner === undefined ? {} : { owner: describeOwner(item.owner) }),
  };
}

function byName(items: readonly Item[]): Map<string, Item> {
  return new Map(items.map((item) => [`${item.resource} ${item.name}`, item]));
}
